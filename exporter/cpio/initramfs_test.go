package cpio

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/need"
	"github.com/slipway-build/slipway/internal/testutil/packed"
)

const limit = 1 << 30

// small returns an archive with one file.
func small(t testing.TB, name, content string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b)
	if err := w.WriteHeader(Header{Name: name, Mode: TypeFile | 0o644, Links: 1, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// list returns "name=content" for each member that can be read.
func list(r *InitramfsReader) ([]string, error) {
	defer r.Close()
	var all []string
	for {
		h, err := r.Next()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		content, err := io.ReadAll(r)
		if err != nil {
			return all, err
		}
		all = append(all, h.Name+"="+string(content))
	}
}

func TestInitramfs(t *testing.T) {
	a, b, c := small(t, "a", "1"), small(t, "b", strings.Repeat("2", 100_000)), small(t, "c", "3")
	zeros := make([]byte, 1000)
	all := slices.Concat(a, zeros, packed.Zstd(t, b), zeros[:3], packed.Gzip(t, slices.Concat(c, zeros, a)), packed.Zstd(t, a), zeros)
	got, err := list(NewInitramfsReader(bytes.NewReader(all), limit))
	want := []string{"a=1", "b=" + strings.Repeat("2", 100_000), "c=3", "a=1", "a=1"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("read %.40q, %v", got, err)
	}
	for name, test := range map[string]struct {
		data  []byte
		limit int64
		want  error
		text  string
	}{
		"text behind": {append(bytes.Clone(a), "text"...), limit, ErrFormat, "initramfs: byte 240: "},
		"xz":          {append(bytes.Clone(a), "\xfd7zXZ\x00"...), limit, ErrFormat, "byte 240: "},
		"short":       {[]byte("070"), limit, ErrFormat, "byte 0: "},
		"nested":      {packed.Zstd(t, packed.Zstd(t, a)), limit, ErrFormat, "compressed archive at byte 0: unpacked byte 0: "},
		"truncated":   {packed.Zstd(t, b)[:30], limit, nil, "compressed archive at byte 0: unpacked byte 0: "},
		"gzip, short": {slices.Concat(a, packed.Gzip(t, b)[:40]), limit, io.ErrUnexpectedEOF, "compressed archive at byte 240: "},
		"too large":   {packed.Gzip(t, b), 50_000, ErrTooLarge, "compressed archive at byte 0: "},
		"too long":    {b, 50_000, ErrTooLarge, "initramfs: byte "},
	} {
		_, err := list(NewInitramfsReader(bytes.NewReader(test.data), test.limit))
		if err == nil || test.want != nil && !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s: error %v, want %v, %q", name, err, test.want, test.text)
		}
	}
	r := NewInitramfsReader(bytes.NewReader(a), limit)
	r.Close()
	if _, err := r.Next(); err == nil {
		t.Error("a closed reader returned a member")
	}
}

// The reader understands what cpio, gzip and zstd write.
func TestInitramfsOfOthers(t *testing.T) {
	need.Program(t, "cpio", "cpio")
	need.Program(t, "gzip", "gzip")
	need.Program(t, "zstd", "zstd")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "zeros"), make([]byte, 3<<20), 0o644); err != nil { // a block of one repeated byte
		t.Fatal(err)
	}
	for _, pack := range []string{"cat", "gzip -9", "zstd -1", "zstd -19 --check", "zstd -3 --no-check", "zstd --ultra -22 --long=24"} {
		cmd := exec.Command("bash", "-o", "pipefail", "-c", "printf 'file\\nzeros\\n' | cpio --quiet -o -H newc | "+pack)
		cmd.Dir = dir
		initrd, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", pack, err)
		}
		want := []string{"file=content", "zeros=" + string(make([]byte, 3<<20))}
		got, err := list(NewInitramfsReader(bytes.NewReader(slices.Concat(initrd, make([]byte, 5), initrd)), limit))
		if err != nil || !slices.Equal(got, slices.Concat(want, want)) {
			t.Errorf("%s: read %.40q, %v", pack, got, err)
		}
	}
}

// No input makes the reader panic or read past its limit.
func FuzzInitramfs(f *testing.F) {
	plain := archive(f)
	for _, seed := range [][]byte{plain, packed.Gzip(f, plain), packed.Zstd(f, plain), slices.Concat(packed.Zstd(f, plain), make([]byte, 3), packed.Gzip(f, plain), plain)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		const limit = 1 << 20
		r := NewInitramfsReader(bytes.NewReader(data), limit)
		defer r.Close()
		total := int64(0)
		for {
			h, err := r.Next()
			if err != nil {
				break
			}
			n, err := io.Copy(io.Discard, r)
			total += n
			if n > h.Size || err == nil && n != h.Size || total > limit {
				t.Fatalf("%q: %d bytes of %d, %d in all, %v", h.Name, n, h.Size, total, err)
			}
		}
	})
}
