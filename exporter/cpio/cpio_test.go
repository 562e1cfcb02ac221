package cpio

import (
	"bytes"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/need"
)

func TestArchiveIsReadByCpio(t *testing.T) {
	need.Program(t, "cpio", "cpio")
	var b bytes.Buffer
	w := NewWriter(&b)
	for _, h := range []Header{
		{Name: "etc", Inode: 1, Mode: TypeDir | 0o755, Links: 2},
		{Name: "etc/a b ü", Inode: 2, Mode: TypeFile | 0o4711, UID: 70000, GID: 4294967294, Links: 1, Size: 3, MTime: 86400},
		{Name: "link", Inode: 3, Mode: TypeSymlink | 0o777, Links: 1, Size: 4},
		{Name: "null", Inode: 4, Mode: TypeChar | 0o666, Links: 1, Major: 1, Minor: 3},
		{Name: "disk", Inode: 5, Mode: TypeBlock | 0o660, Links: 1, Major: 259, Minor: 300},
		{Name: "fifo", Inode: 6, Mode: TypeFIFO | 0o600, Links: 1},
	} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, "1234"[:h.Size]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("cpio", "-itv", "--numeric-uid-gid", "--quiet")
	cmd.Env = []string{"TZ=UTC", "LC_ALL=C"}
	cmd.Stdin = &b
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("cpio: %v\n%s", err, out)
	}
	var got []string
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		`drwxr-xr-x 2 0 0 0 Jan 1 1970 etc`,
		`-rws--x--x 1 70000 4294967294 3 Jan 2 1970 etc/a b ü`,
		`lrwxrwxrwx 1 0 0 4 Jan 1 1970 link -> 1234`,
		`crw-rw-rw- 1 0 0 1, 3 Jan 1 1970 null`,
		`brw-rw---- 1 0 0 259, 300 Jan 1 1970 disk`,
		`prw------- 1 0 0 0 Jan 1 1970 fifo`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("cpio lists\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// The size of an archive and of each of its members is a multiple of four bytes.
func TestPadding(t *testing.T) {
	for size := int64(0); size < 5; size++ {
		var b bytes.Buffer
		w := NewWriter(&b)
		if err := w.WriteHeader(Header{Name: strings.Repeat("n", 1+int(size)), Size: size}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if at := bytes.LastIndex(b.Bytes(), []byte(magic)); at%4 != 0 || b.Len()%4 != 0 {
			t.Errorf("content of %d bytes: trailer at %d, end at %d", size, at, b.Len())
		}
	}
}

func TestErrors(t *testing.T) {
	for want, write := range map[string]func(*Writer) error{
		"big has 4294967296 bytes, but a file in an initramfs must be smaller than 4 GiB": func(w *Writer) error {
			return w.WriteHeader(Header{Name: "big", Size: 1 << 32})
		},
		"has 4096 bytes; Linux accepts 4095": func(w *Writer) error {
			return w.WriteHeader(Header{Name: strings.Repeat("n", 4096)})
		},
		`the name "TRAILER!!!" cannot be stored`: func(w *Writer) error { return w.WriteHeader(Header{Name: "TRAILER!!!"}) },
		`the name "" cannot be stored`:           func(w *Writer) error { return w.WriteHeader(Header{}) },
		"a: the content is shorter than the size in the header by 2 bytes": func(w *Writer) error {
			return errors.Join(w.WriteHeader(Header{Name: "a", Size: 2}), w.Close())
		},
		"a: the content is longer than the size in the header by 1 bytes": func(w *Writer) error {
			return errors.Join(w.WriteHeader(Header{Name: "a", Size: 2}), second(w.Write([]byte("abc"))))
		},
		"the archive is closed": func(w *Writer) error { return errors.Join(w.Close(), w.WriteHeader(Header{Name: "a"})) },
	} {
		err := write(NewWriter(io.Discard))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func second(_ int, err error) error { return err }

// The largest file is accepted.
func TestMaxSize(t *testing.T) {
	var b bytes.Buffer
	if err := NewWriter(&b).WriteHeader(Header{Name: "big", Size: MaxSize}); err != nil {
		t.Fatal(err)
	}
	if size := b.String()[6+6*8 : 6+7*8]; size != "ffffffff" {
		t.Errorf("size field %s", size)
	}
}
