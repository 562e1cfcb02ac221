package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/kernel/cmdline"
)

// fakeDisk is a disk in memory that records the order of writes.
type fakeDisk struct {
	data    []byte
	writes  []int64
	settled int
	lies    bool  // changes what is written
	fails   int64 // offset of a write that fails; -1 for none
}

var errBroken = errors.New("input/output error")

func (d *fakeDisk) ReadAt(p []byte, at int64) (int, error) {
	return bytes.NewReader(d.data).ReadAt(p, at)
}

func (d *fakeDisk) WriteAt(p []byte, at int64) (int, error) {
	d.writes = append(d.writes, at)
	if at == d.fails {
		return 0, errBroken
	}
	n := copy(d.data[at:], p)
	if d.lies {
		d.data[at] ^= 1
	}
	return n, nil
}

func (d *fakeDisk) zero(at, length int64) error {
	clear(d.data[at : at+length])
	return nil
}

func (d *fakeDisk) settle() error {
	d.settled++
	return nil
}

// testImage has random chunks, and one of zeros.
func testImage(size int) (*image, []byte) {
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(data)
	clear(data[chunkSize : 2*chunkSize])
	return &image{ReaderAt: bytes.NewReader(data), Closer: io.NopCloser(nil), name: "m.raw", size: int64(size)}, data
}

func oldDisk(size int) *fakeDisk {
	return &fakeDisk{data: bytes.Repeat([]byte{0xee}, size), fails: -1}
}

func TestWrite(t *testing.T) {
	for _, extra := range []int{0, 512, 3 << 20} {
		i, data := testImage(3*chunkSize + 5120)
		d := oldDisk(len(data) + extra)
		if err := write(d, int64(len(d.data)), i); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(d.data[:len(data)], data) || i.written != sha256.Sum256(data) {
			t.Errorf("%d bytes more: the disk differs", extra)
		}
		if tail := d.data[max(len(data), len(d.data)-1<<20):]; !isZero(tail) {
			t.Errorf("%d bytes more: the old partition table is still at the end", extra)
		}
		if last := d.writes[len(d.writes)-1]; last != 0 || d.settled < 2 || len(d.writes) != 3 {
			t.Errorf("%d bytes more: the writes were at %d, settled %d times", extra, d.writes, d.settled)
		}
	}
}

// TestWriteFails checks that a disk which has not all of the image does not
// boot.
func TestWriteFails(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*image, *fakeDisk)
		want   string
	}{
		"broken disk":   {func(_ *image, d *fakeDisk) { d.lies = true }, "it is broken"},
		"failing write": {func(_ *image, d *fakeDisk) { d.fails = 2 * chunkSize }, "input/output error"},
		"other digest":  {func(i *image, _ *fakeDisk) { i.sha256 = make([]byte, 32) }, "not 000000"},
		"short image":   {func(i *image, _ *fakeDisk) { i.ReaderAt = bytes.NewReader(make([]byte, chunkSize)) }, "read at 4194304"},
	} {
		i, data := testImage(3 * chunkSize)
		d := oldDisk(len(data))
		test.change(i, d)
		if err := write(d, int64(len(d.data)), i); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
		if !isZero(d.data[:512]) {
			t.Errorf("%s: the disk has a boot sector", name)
		}
	}
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		args   string
		kernel string
		want   config
		err    string
	}{
		{"/m.raw", "", config{image: "/m.raw", then: "reboot"}, ""},
		{"-disk /dev/vda -overwrite /m.raw", "quiet", config{image: "/m.raw", disk: "/dev/vda", overwrite: true, then: "reboot"}, ""},
		{"-disk /dev/vda -overwrite /m.raw", "install.disk=/dev/vdb install.overwrite=0 install.then=poweroff install.image=oci://r/m@sha256:0", config{image: "oci://r/m@sha256:0", disk: "/dev/vdb", then: "poweroff"}, ""},
		{"/m.raw", "install.overwrite", config{image: "/m.raw", overwrite: true, then: "reboot"}, ""},
		{"", "", config{}, "there is no image"},
		{"a b", "", config{}, "2 images"},
		{"a", "install.then=format", config{}, "must be reboot, poweroff or nothing"},
	} {
		got, err := parse(strings.Fields(c.args), cmdline.Parse(c.kernel))
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q %q: %v", c.args, c.kernel, err)
			}
			continue
		}
		if err != nil || got != c.want {
			t.Errorf("%q %q: %+v, %v, want %+v", c.args, c.kernel, got, err, c.want)
		}
	}
}

func TestOpenImage(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "m.raw")
	if err := os.WriteFile(file, make([]byte, 512), 0o600); err != nil {
		t.Fatal(err)
	}
	i, err := openImage(t.Context(), file, strings.Repeat("ab", 32))
	if err != nil || i.size != 512 || len(i.sha256) != 32 {
		t.Fatalf("%+v, %v", i, err)
	}
	i.Close()
	for name, digest := range map[string]string{file: "ab", dir: "", filepath.Join(dir, "none"): "", "oci://example.com/m:v1": "", "oci://": ""} {
		if _, err := openImage(t.Context(), name, digest); err == nil {
			t.Errorf("%s %s: no error", name, digest)
		}
	}
}

func TestRead(t *testing.T) {
	iso := make([]byte, 3<<20)
	copy(iso[16*2048+1:], "CD001")
	for name, test := range map[string]struct {
		content []byte
		holds   string
		err     string
	}{
		"empty":     {make([]byte, 3<<20), "", ""},
		"used":      {bytes.Repeat([]byte{1}, 3<<20), "partitions or unknown data", ""},
		"iso":       {iso, "iso9660", "it holds an ISO"},
		"too small": {make([]byte, 1<<20), "", "it has 1048576 bytes, and the image 2097152"},
	} {
		file := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(file, test.content, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var d disk
		err = d.read(f, 2<<20)
		if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) || d.content != test.holds {
			t.Errorf("%s: %q, %v", name, d.content, err)
		}
	}
	// A regular file is no disk, nor is a partition.
	if _, err := named(filepath.Join(t.TempDir(), "none"), 1, false, 0); err == nil {
		t.Error("a disk that does not exist")
	}
	if _, err := named("/dev/null", 1, true, 0); err == nil || !strings.Contains(err.Error(), "not a whole disk") {
		t.Errorf("/dev/null: %v", err)
	}
}

func TestAsk(t *testing.T) {
	i, _ := testImage(2 * chunkSize)
	disks := []disk{
		{path: "/dev/vda", size: 1e6, unfit: errors.New("it is too small")},
		{path: "/dev/vdb", size: 1e9, model: "Virtual"},
		{path: "/dev/vdc", size: 2e12, content: "ext4"},
	}
	for input, want := range map[string]string{
		"1\n":                   "/dev/vdb",
		"x\n0\n3\n1\n":          "/dev/vdb",
		"2\n/dev/vdc\n":         "/dev/vdc",
		"2\nyes\n2\n/dev/vdc\n": "/dev/vdc",
		"2\n\n1\n":              "/dev/vdb",
		"":                      "",
		"2\n":                   "",
	} {
		var out bytes.Buffer
		got, err := ask(bufio.NewReader(strings.NewReader(input)), &out, i, disks)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", input, got, err)
		}
		for _, line := range []string{"  -  /dev/vda, 1.0 MB: it is too small\n", "  1  /dev/vdb, 1.0 GB, Virtual: empty\n", "  2  /dev/vdc, 2.0 TB: holds ext4\n"} {
			if !strings.Contains(out.String(), line) {
				t.Errorf("%q is not in %s", line, out.String())
			}
		}
	}
	if _, err := ask(bufio.NewReader(strings.NewReader("1\n")), io.Discard, i, disks[:1]); err == nil {
		t.Error("there is no disk to choose")
	}
	if got := fmt.Sprint(printable("a\x1b[2Jb\n ")); got != "a[2Jb" {
		t.Errorf("printable returns %q", got)
	}
}
