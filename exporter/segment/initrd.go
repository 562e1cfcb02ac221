package segment

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/contract"
)

// Names of the files in a segment's directory.
const (
	FileName = "segment"
	// NamesName lists what is in a cpio segment, for Initrd.
	NamesName = "names"
	// APKName holds the package database of an init image, to be merged.
	APKName = "apk-installed"
)

// apkDatabase is where Alpine's package manager lists what is installed.
const apkDatabase = "lib/apk/db/installed"

// APKDatabase finds the regular file of the apk database among the entries of
// an image.
func APKDatabase(entries []tree.Entry) (tree.Entry, bool) {
	for _, e := range entries {
		if e.Path == apkDatabase && e.Type == tree.File {
			return e, true
		}
	}
	return tree.Entry{}, false
}

// Part is a part of an initramfs: the content of a file, or data.
type Part struct {
	File string // name
	Data []byte
}

// PartAlignment is what parts of an initramfs start at multiples of, in bytes.
const PartAlignment = alignment

// Initrd gives the parts of the initramfs that cpio segments make, in their
// order: the initramfs is these after each other, each at a multiple of
// PartAlignment, with any number of NULs between them. A microcode archive goes
// first and uncompressed, as the kernel wants it (Linux,
// Documentation/arch/x86/microcode.rst); ucode is its file name, "" or a
// missing file for none.
//
// If several of the segments have an apk database, a segment that holds all of
// them follows the last of these, compressed as that one is.
//
// Extended attributes, for which newc has no place, are in a last segment: the
// file contract.XattrsFile. They are those that files have when all segments lie
// over each other.
//
// Initrd fails where tree.Merge does: the kernel would unpack one of the segments
// in part, without a word.
func Initrd(ucode string, segments []Dir) ([]Part, error) {
	xattrs, err := mergeNames(segments)
	if err != nil {
		return nil, err
	}
	var parts []Part
	if ucode != "" {
		switch _, err := os.Stat(ucode); {
		case err == nil:
			parts = append(parts, Part{File: ucode})
		case !errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("microcode: %w", err)
		}
	}
	databases, err := findDatabases(segments)
	if err != nil {
		return nil, err
	}
	for i, segment := range segments {
		name := filepath.Join(segment.Path, FileName)
		parts = append(parts, Part{File: name})
		if databases.mergedAfter(i) {
			merged, err := databases.merge()
			if err != nil {
				return nil, err
			}
			part, err := generated(name, merged)
			if err != nil {
				return nil, err
			}
			parts = append(parts, part)
		}
		if i == len(segments)-1 && len(xattrs) > 0 {
			list, err := xattrs.Marshal()
			if err != nil {
				return nil, err
			}
			dir := tree.NewDir(contract.XattrsDir)
			dir.Mode = 0o700
			part, err := generated(name, dir, tree.NewFile(contract.XattrsFile, 0o600, string(list)))
			if err != nil {
				return nil, err
			}
			parts = append(parts, part)
		}
	}
	return parts, nil
}

// generated is a segment that is compressed as the one in a file is.
func generated(name string, entries ...tree.Entry) (Part, error) {
	compression, err := detect(name)
	if err != nil {
		return Part{}, err
	}
	var b bytes.Buffer
	err = Write(&b, entries, compression)
	return Part{Data: b.Bytes()}, err
}

// mergeNames makes sure that the segments can be unpacked over each other, and
// gives the extended attributes that files have in the end.
func mergeNames(segments []Dir) (contract.Xattrs, error) {
	var parts []tree.Part
	for _, segment := range segments {
		entries, err := readNames(filepath.Join(segment.Path, NamesName))
		if err != nil {
			return nil, err
		}
		parts = append(parts, tree.Part{Name: segment.Name, Entries: entries})
	}
	merged, err := tree.Merge(parts)
	if err != nil {
		return nil, err
	}
	xattrs := contract.Xattrs{}
	for _, e := range merged {
		for name, value := range e.Xattrs {
			if xattrs[e.Path] == nil {
				xattrs[e.Path] = map[string][]byte{}
			}
			xattrs[e.Path][name] = []byte(value)
		}
	}
	return xattrs, nil
}

// databases are the apk databases of segments.
type databases struct {
	files []string
	last  int // segment that has the last of them
}

func findDatabases(segments []Dir) (databases, error) {
	var found databases
	for i, segment := range segments {
		name := filepath.Join(segment.Path, APKName)
		switch _, err := os.Stat(name); {
		case err == nil:
			found.files, found.last = append(found.files, name), i
		case !errors.Is(err, fs.ErrNotExist):
			return found, err
		}
	}
	return found, nil
}

// mergedAfter tells whether there is a database of all to follow a segment.
func (d databases) mergedAfter(segment int) bool {
	return len(d.files) > 1 && segment == d.last
}

// merge gives the database of all, each followed by two newlines.
func (d databases) merge() (tree.Entry, error) {
	var merged []byte
	for _, name := range d.files {
		data, err := os.ReadFile(name)
		if err != nil {
			return tree.Entry{}, fmt.Errorf("merge apk databases: %w", err)
		}
		merged = append(append(merged, data...), "\n\n"...)
	}
	return tree.NewFile(apkDatabase, 0o644, string(merged)), nil
}
