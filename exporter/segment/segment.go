// Package segment packs the parts of a machine's root filesystem.
//
// A segment is an archive with the files of one component: a cpio archive for an
// initramfs, or a tar archive for all other root filesystems.
//
// Linux unpacks a sequence of cpio archives, compressed or not, with NULs between
// them (Linux, Documentation/driver-api/early-userspace/buffer-format.rst). A
// cpio segment is one or, if it is large, several of these: newc archives, each
// with a trailer and in one compression frame. NULs pad the segment to a multiple
// of 4 bytes. Initrd concatenates segments. A later segment overrides files and
// attributes of an earlier one and removes nothing.
//
// Entries are sorted, inodes are numbered from 1 and times are 0, so a segment
// depends on its files alone. The newc format cannot store extended attributes;
// a list next to a cpio segment contains them, for Initrd. Tar segments are not
// compressed and contain all attributes; Tree merges them.
package segment

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/slipway-build/slipway/exporter/internal/atomicfile"
	"github.com/slipway-build/slipway/exporter/tree"
)

// Names of the files in the directory of a segment.
const (
	FileName = "segment"
	// NamesName is the list of the entries of a cpio segment, for Initrd.
	NamesName = "names"
	// APKName is the package database of an init image, which Initrd and Tree
	// merge.
	APKName = "apk-installed"
	// KernelName is the kernel. Packer.Kernel writes it.
	KernelName = "kernel"
	// UcodeName is the microcode archive. Packer.Kernel writes it.
	UcodeName = "ucode.cpio"
)

// Archive is the form of a segment.
type Archive string

// The forms of segments.
const (
	CPIO Archive = "cpio" // for an initramfs
	Tar  Archive = "tar"  // for all other root filesystems
)

// Dir is the directory of a segment.
type Dir struct {
	Name string // of the component, for error messages
	Path string
}

// ParseDir parses "NAME=PATH", or "PATH", which is then the name too.
func ParseDir(s string) Dir {
	if name, path, ok := strings.Cut(s, "="); ok && name != "" && !strings.Contains(name, "/") {
		return Dir{Name: name, Path: path}
	}
	return Dir{Name: s, Path: s}
}

// Packer writes segments.
type Packer struct {
	Out         string // directory of the segment
	Archive     Archive
	Compression Compression // of CPIO
}

// PackEntries returns the files of the segment of a spec whose entries need no
// sources, by name: what Packer.Entries writes. The compression, as
// ParseCompression takes it, applies to CPIO.
func PackEntries(spec []byte, archive Archive, compression string) (map[string][]byte, error) {
	p := Packer{Archive: archive}
	if archive == CPIO {
		var err error
		if p.Compression, err = ParseCompression(compression); err != nil {
			return nil, err
		}
	}
	entries, err := ReadSpec(bytes.NewReader(spec), nil)
	if err != nil {
		return nil, err
	}
	if err := tree.Check(entries); err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, file := range p.files(entries) {
		var b bytes.Buffer
		if err := file.write(&b); err != nil {
			return nil, err
		}
		files[file.name] = b.Bytes()
	}
	return files, nil
}

// write writes the segment of entries.
func (p Packer) write(entries []tree.Entry) error {
	if err := tree.Check(entries); err != nil {
		return err
	}
	for _, file := range p.files(entries) {
		err := atomicfile.Write(filepath.Join(p.Out, file.name), func(f *os.File) error { return file.write(f) })
		if err != nil {
			return err
		}
	}
	return nil
}

// file is a file of a segment.
type file struct {
	name  string
	write func(io.Writer) error
}

// layerTime is the modification time of all files in tar archives.
var layerTime = time.Unix(0, 0)

// files returns the files of a segment. The archive comes first: it reads the
// contents of entries, so it can fail, and no other file must exist then.
func (p Packer) files(entries []tree.Entry) []file {
	if p.Archive == Tar {
		return []file{{FileName, func(w io.Writer) error { return tree.WriteTar(w, entries, layerTime) }}}
	}
	return []file{
		{FileName, func(w io.Writer) error { return Write(w, entries, p.Compression) }},
		{NamesName, func(w io.Writer) error { return writeNames(w, entries) }},
	}
}

func checkPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	if err := tree.CheckPath(prefix); err != nil {
		return fmt.Errorf("prefix: %w", err)
	}
	return nil
}
