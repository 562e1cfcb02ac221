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

// Part is a part of an initramfs: a file, or data.
type Part struct {
	File string // name
	Data []byte
}

// PartAlignment is the alignment of the parts of an initramfs in bytes.
const PartAlignment = alignment

// Initrd returns the parts of the initramfs that cpio segments make, in order.
// The initramfs is their concatenation, with each part at a multiple of
// PartAlignment and any number of NULs between parts. The first part is the
// microcode archive, which the kernel requires to come first and uncompressed
// (Linux, Documentation/arch/x86/microcode.rst). Its file name, ucode, can be "",
// and the file may be missing.
//
// If several segments have an apk database, a segment with the merged database
// follows the last of these, with the same compression.
//
// The last segment contains the list of extended attributes, which newc cannot
// store (contract.XattrsFile). These are the attributes that files have after all
// segments are unpacked.
//
// Initrd fails where tree.Merge does: the kernel would silently unpack only a
// part of such segments. It also fails where CheckStarts does.
func Initrd(ucode string, segments []Dir, starts []contract.Start) ([]Part, error) {
	xattrs, err := mergeNames(segments, starts)
	if err != nil {
		return nil, err
	}
	databases, err := findDatabases(segments)
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
	var name string
	for i, segment := range segments {
		name = filepath.Join(segment.Path, FileName)
		parts = append(parts, Part{File: name})
		if !databases.mergedAfter(i) {
			continue
		}
		merged, err := databases.merge()
		if err != nil {
			return nil, err
		}
		part, err := packLike(name, merged)
		if err != nil {
			return nil, err
		}
		parts = append(parts, part)
	}
	if len(xattrs) == 0 {
		return parts, nil
	}
	list, err := xattrs.Marshal()
	if err != nil {
		return nil, err
	}
	dir := tree.NewDir(contract.XattrsDir)
	dir.Mode = 0o700
	part, err := packLike(name, dir, tree.NewFile(contract.XattrsFile, 0o600, string(list)))
	return append(parts, part), err
}

// packLike returns a segment with the compression of the segment in a file.
func packLike(name string, entries ...tree.Entry) (Part, error) {
	compression, err := detect(name)
	if err != nil {
		return Part{}, err
	}
	var b bytes.Buffer
	err = Write(&b, entries, compression)
	return Part{Data: b.Bytes()}, err
}

// mergeNames checks that the segments can be unpacked over each other, and that
// containers can start. It returns the extended attributes that files have then.
func mergeNames(segments []Dir, starts []contract.Start) (contract.Xattrs, error) {
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
	if err := CheckStarts(merged, starts); err != nil {
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
