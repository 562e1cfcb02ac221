package segment

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/slipway-build/slipway/exporter/tree"
)

// BootFiles are the files that Tree puts into the directory boot.
type BootFiles struct {
	Kernel  string // file name
	Ucode   string // file name of the microcode archive; optional, and the file may be missing
	Cmdline string // kernel command line
}

// Tree merges tar segments, in order, into the root filesystem that they make.
// After the first segment, which has the directories of the machine, Tree adds
// boot/kernel and boot/ucode.cpio, with the permissions of their files, and
// boot/cmdline, unless boot is nil. If several segments have an apk database, the
// merged database follows the last of these.
//
// Contents can be opened until closeTree is called.
func Tree(segments []Dir, boot *BootFiles) (entries []tree.Entry, closeTree func(), err error) {
	var files []*os.File
	closeFiles := func() {
		for _, f := range files {
			f.Close()
		}
	}
	defer func() {
		if err != nil {
			closeFiles()
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
		entries, err := readTar(f)
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
	return entries, closeFiles, err
}

func readTar(f *os.File) ([]tree.Entry, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return tree.ReadTar(f, info.Size())
}

// entries returns the directory boot.
func (b BootFiles) entries() ([]tree.Entry, error) {
	entries := []tree.Entry{tree.NewDir("boot"), tree.NewFile("boot/cmdline", 0o644, b.Cmdline)}
	kernel, err := fileEntry("boot/kernel", b.Kernel)
	if err != nil {
		return nil, err
	}
	entries = append(entries, kernel)
	if b.Ucode != "" {
		switch ucode, err := fileEntry("boot/ucode.cpio", b.Ucode); {
		case err == nil:
			entries = append(entries, ucode)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	tree.Sort(entries)
	return entries, nil
}

// fileEntry returns an entry with the content and the permissions of a file.
func fileEntry(path, name string) (tree.Entry, error) {
	info, err := os.Stat(name)
	if err != nil {
		return tree.Entry{}, err
	}
	return tree.Entry{
		Path: path,
		Type: tree.File,
		Mode: uint32(info.Mode().Perm()),
		Size: info.Size(),
		Open: func() (tree.Content, error) { return os.Open(name) },
	}, nil
}
