package format

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"testing"
)

// TestContainerDisk checks that a container disk is the disk of qcow2 where
// KubeVirt finds it, and that its user can read it.
func TestContainerDisk(t *testing.T) {
	write := func(name string) []byte {
		t.Helper()
		f, _ := Lookup(name)
		in := input(t, f.Segments)
		in.Architecture = "amd64"
		files, err := Write(name, in, t.TempDir(), func(w string) { t.Error(w) })
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	want := write("qcow2")
	archive := tar.NewReader(bytes.NewReader(write("containerdisk")))
	var names []string
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		if h.Typeflag == tar.TypeDir {
			if h.Mode != 0o755 || h.Uid != 0 || h.Gid != 0 {
				t.Errorf("%s has the mode %o and the owner %d:%d", h.Name, h.Mode, h.Uid, h.Gid)
			}
			continue
		}
		if h.Mode != 0o440 || h.Uid != 107 || h.Gid != 107 {
			t.Errorf("%s has the mode %o and the owner %d:%d, want 440 and 107:107", h.Name, h.Mode, h.Uid, h.Gid)
		}
		if got, err := io.ReadAll(archive); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s has %d bytes, and qcow2 %d, %v", h.Name, len(got), len(want), err)
		}
	}
	if !slices.Equal(names, []string{"disk/", "disk/m.qcow2"}) {
		t.Errorf("the files are %q", names)
	}
}
