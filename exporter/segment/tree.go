package segment

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/slipway-build/slipway/exporter/tree"
)

// Dir is a directory with what Packer made of one component.
type Dir struct {
	Name string // of the component, for messages
	Path string
}

// ParseDir reads "NAME=PATH" or "PATH", whose name is the path.
func ParseDir(s string) Dir {
	if name, path, ok := strings.Cut(s, "="); ok && name != "" && !strings.Contains(name, "/") {
		return Dir{Name: name, Path: path}
	}
	return Dir{Name: s, Path: s}
}

// Boot is what a machine boots, for Tree to put into boot/.
type Boot struct {
	Kernel  string // file name
	Ucode   string // file name of the microcode archive; "" or a missing file for none
	Cmdline string // kernel command line
}

// Tree gives the root filesystem that tar segments make, laid over each other
// in their order. Boot, nil for none, comes right after the first segment, which
// has the directories of the machine: boot/kernel and boot/ucode.cpio, with the
// permissions of their files, and boot/cmdline. If several of the segments have
// an apk database, one that holds all of them comes after the last of these.
//
// Contents can be opened until close is called.
func Tree(segments []Dir, boot *Boot) (entries []tree.Entry, close func(), err error) {
	var files []*os.File
	closeAll := func() {
		for _, f := range files {
			f.Close()
		}
	}
	defer func() {
		if err != nil {
			closeAll()
		}
	}()
	databases, err := findDatabases(segments)
	if err != nil {
		return nil, nil, err
	}
	var parts []tree.Part
	for i, segment := range segments {
		f, err := os.Open(filepath.Join(segment.Path, FileName))
		if err != nil {
			return nil, nil, err
		}
		files = append(files, f)
		info, err := f.Stat()
		if err != nil {
			return nil, nil, err
		}
		entries, err := tree.ReadTar(f, info.Size())
		if err != nil {
			return nil, nil, fmt.Errorf("segment of %s: %w", segment.Name, err)
		}
		parts = append(parts, tree.Part{Name: segment.Name, Entries: entries})
		if i == 0 && boot != nil {
			entries, err := boot.entries()
			if err != nil {
				return nil, nil, err
			}
			parts = append(parts, tree.Part{Name: "the kernel", Entries: entries})
		}
		if databases.mergedAfter(i) {
			merged, err := databases.merge()
			if err != nil {
				return nil, nil, err
			}
			parts = append(parts, tree.Part{Name: "the apk databases", Entries: []tree.Entry{merged}})
		}
	}
	entries, err = tree.Merge(parts)
	return entries, closeAll, err
}

// entries gives the directory boot.
func (b Boot) entries() ([]tree.Entry, error) {
	entries := []tree.Entry{tree.NewDir("boot"), tree.NewFile("boot/cmdline", 0o644, b.Cmdline)}
	for path, name := range map[string]string{"boot/kernel": b.Kernel, "boot/ucode.cpio": b.Ucode} {
		if name == "" {
			continue
		}
		info, err := os.Stat(name)
		if path != "boot/kernel" && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		entries = append(entries, tree.Entry{
			Path: path, Type: tree.File, Mode: uint32(info.Mode().Perm()), Size: info.Size(),
			Open: func() (tree.Content, error) { return os.Open(name) },
		})
	}
	tree.Sort(entries)
	return entries, nil
}
