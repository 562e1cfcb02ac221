package cpio

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/need"

	"github.com/google/go-cmp/cmp"
)

// members are one of each kind, with their contents.
var members = []struct {
	Header
	content string
}{
	{Header{Name: "etc", Inode: 1, Mode: TypeDir | 0o755, Links: 2}, ""},
	{Header{Name: "etc/a b ü", Inode: 2, Mode: TypeFile | 0o4711, UID: 70000, GID: 4294967294, Links: 1, Size: 3, MTime: 86400}, "abc"},
	{Header{Name: "first", Inode: 7, Mode: TypeFile | 0o644, Links: 2}, ""},
	{Header{Name: "last", Inode: 7, Mode: TypeFile | 0o644, Links: 2, Size: 5}, "12345"},
	{Header{Name: "link", Inode: 3, Mode: TypeSymlink | 0o777, Links: 1, Size: 4}, "1234"},
	{Header{Name: "null", Inode: 4, Mode: TypeChar | 0o666, Links: 1, Major: 1, Minor: 3}, ""},
	{Header{Name: "disk", Inode: 5, Mode: TypeBlock | 0o660, Links: 1, Major: 259, Minor: 300}, ""},
	{Header{Name: "fifo", Inode: 6, Mode: TypeFIFO | 0o600, Links: 1}, ""},
}

func archive(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b)
	for _, m := range members {
		if err := w.WriteHeader(m.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, m.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// The Reader returns what the Writer wrote, whether contents are read in full,
// in part or not at all, and leaves what follows the archive.
func TestReader(t *testing.T) {
	data := archive(t)
	for _, part := range []int{0, 2, 100} {
		source := bytes.NewReader(append(bytes.Clone(data), "rest"...))
		r := NewReader(source)
		for _, m := range members {
			h, err := r.Next()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(m.Header, *h); diff != "" {
				t.Errorf("header (-written +read):\n%s", diff)
			}
			content := make([]byte, part)
			n, err := io.ReadFull(r, content)
			if want := m.content[:min(part, len(m.content))]; string(content[:n]) != want {
				t.Errorf("%s: content %q, want %q, %v", m.Name, content[:n], want, err)
			}
		}
		for range 2 {
			if _, err := r.Next(); err != io.EOF {
				t.Errorf("at the end: error %v, want EOF", err)
			}
		}
		if rest, err := io.ReadAll(source); err != nil || string(rest) != "rest" {
			t.Errorf("the reader left %q, %v", rest, err)
		}
	}
}

func TestReaderErrors(t *testing.T) {
	good := archive(t)
	change := func(at int, to string) []byte {
		data := bytes.Clone(good)
		copy(data[at:], to)
		return data
	}
	const second = headerSize + 6 // after "etc" with its NUL and padding
	for name, test := range map[string]struct {
		data []byte
		want error
		text string
	}{
		"empty":         {nil, io.ErrUnexpectedEOF, "byte 0: "},
		"other format":  {change(0, "070707"), ErrFormat, `byte 0: not a cpio archive in the newc format: it starts with "070707"`},
		"number":        {change(second+14, "x"), ErrFormat, `byte 130: not a cpio archive in the newc format: "x00`},
		"sign":          {change(6, "+"), ErrFormat, "byte 6: "},
		"long name":     {change(6+11*8, "00001001"), ErrFormat, "byte 0: not a cpio archive in the newc format: a name has 4097 bytes"},
		"no name":       {change(6+11*8, "00000000"), ErrFormat, "a name has 0 bytes"},
		"no NUL":        {change(headerSize+3, "x"), ErrFormat, "a name has no NUL"},
		"in a header":   {good[:second+20], io.ErrUnexpectedEOF, "byte 136: "},
		"in a name":     {good[:headerSize+2], io.ErrUnexpectedEOF, "byte 112: "},
		"in a content":  {good[:second+headerSize+12], io.ErrUnexpectedEOF, "byte 238: "},
		"no trailer":    {good[:len(good)-headerSize-len(trailer)-4], io.ErrUnexpectedEOF, ""},
		"reader failed": {nil, os.ErrPermission, "byte 0: "},
	} {
		var source io.Reader = bytes.NewReader(test.data)
		if test.want == os.ErrPermission {
			source = failing{}
		}
		r := NewReader(source)
		var err error
		for err == nil {
			_, err = r.Next()
		}
		if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s: error %v, want %q", name, err, test.text)
		}
		if _, again := r.Next(); again != err {
			t.Errorf("%s: then error %v", name, again)
		}
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, os.ErrPermission }

// The Reader reads what cpio(1) writes in both variants of the format.
func TestReaderReadsCpio(t *testing.T) {
	need.Program(t, "cpio", "cpio")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(dir, "file"), filepath.Join(dir, "same")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("file", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"newc", "crc"} {
		cmd := exec.Command("cpio", "--quiet", "-o", "-H", format)
		cmd.Dir, cmd.Stdin = dir, strings.NewReader("file\nlink\nsame\n")
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		r := NewReader(bytes.NewReader(out))
		for {
			h, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			content, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			got[h.Name] = string(content)
			if h.Name != "link" && (h.Mode != TypeFile|0o640 || h.Links != 2) {
				t.Errorf("%s: header %+v", format, h)
			}
		}
		// GNU cpio stores the content with the last of several links, too.
		if diff := cmp.Diff(map[string]string{"file": "", "same": "content", "link": "file"}, got); diff != "" {
			t.Errorf("%s: contents (-packed +read):\n%s", format, diff)
		}
	}
}

// Input from strangers has no effect but an error, and contents are no longer
// than their headers say.
func FuzzReader(f *testing.F) {
	f.Add(archive(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := NewReader(bytes.NewReader(data))
		for {
			h, err := r.Next()
			if err != nil {
				return
			}
			n, err := io.Copy(io.Discard, r)
			if len(h.Name) >= nameMax || n > h.Size || err == nil && n != h.Size {
				t.Fatalf("%q: %d bytes of %d, %v", h.Name, n, h.Size, err)
			}
		}
	})
}
