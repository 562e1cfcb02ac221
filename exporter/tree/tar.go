package tree

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"strings"
)

// ReadTar reads the tree that unpacking an uncompressed tar archive gives: a
// later entry replaces an earlier one of the same path, a hard link has the
// file that its target was at that point of the archive, directories that the
// archive leaves out are 0755 root. The result is sorted by path.
//
// Contents are read from r when a writer asks for them. The format is that of
// POSIX.1-2001 (pax) with the extensions of archive/tar; sparse files are
// refused, because their content is not one piece of the archive.
func ReadTar(r io.ReaderAt, size int64) ([]Entry, error) {
	section := io.NewSectionReader(r, 0, size)
	archive := tar.NewReader(section)
	files := map[string]Entry{}
	var inodes uint64
	for {
		hdr, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read tar: %w (the archive must be an uncompressed tar)", err)
		}
		name := cleanTarName(hdr.Name)
		if name == "." {
			continue
		}
		if err := CheckPath(name); err != nil {
			return nil, fmt.Errorf("read tar: %w", err)
		}
		for _, n := range []int64{int64(hdr.Uid), int64(hdr.Gid), hdr.Devmajor, hdr.Devminor} {
			if n < 0 || n > math.MaxUint32 {
				return nil, fmt.Errorf("read tar: %s: owner or device number %d is out of range", name, n)
			}
		}
		e := Entry{Path: name, Mode: uint32(hdr.Mode) & ModeMask, UID: uint32(hdr.Uid), GID: uint32(hdr.Gid), Xattrs: tarXattrs(hdr)}
		switch hdr.Typeflag {
		case tar.TypeReg:
			e.Type = File
			e.Size = hdr.Size
			if isSparse(hdr) {
				return nil, errSparse(name)
			}
			// tar.Reader reads whole blocks only, so after a header the
			// section stands at the first byte of the content.
			offset, err := section.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, fmt.Errorf("read tar: %w", err)
			}
			e.Open = func() (io.ReadCloser, error) {
				return io.NopCloser(io.NewSectionReader(r, offset, e.Size)), nil
			}
		case tar.TypeDir:
			e.Type = Dir
		case tar.TypeSymlink:
			e.Type = Symlink
			e.Mode = 0o777
			e.Link = hdr.Linkname
		case tar.TypeChar, tar.TypeBlock:
			e.Type = Char
			if hdr.Typeflag == tar.TypeBlock {
				e.Type = Block
			}
			e.Major, e.Minor = uint32(hdr.Devmajor), uint32(hdr.Devminor)
		case tar.TypeFifo:
			e.Type = FIFO
		case tar.TypeLink:
			target, ok := files[cleanTarName(hdr.Linkname)]
			if !ok {
				return nil, fmt.Errorf("read tar: hard link %s: its target %s does not come before it", name, hdr.Linkname)
			}
			if target.Type == Dir {
				return nil, fmt.Errorf("read tar: hard link %s: its target %s is a directory", name, hdr.Linkname)
			}
			if target.Path == name {
				continue
			}
			if target.Inode == 0 {
				inodes++
				target.Inode = inodes
				files[target.Path] = target
			}
			e = target
			e.Path = name
		case tar.TypeXGlobalHeader:
			continue
		case tar.TypeGNUSparse:
			return nil, errSparse(name)
		default:
			return nil, fmt.Errorf("read tar: %s has type %q, which a root filesystem cannot hold", name, hdr.Typeflag)
		}
		if err := checkReplace(files, e); err != nil {
			return nil, fmt.Errorf("read tar: %w", err)
		}
		files[name] = e
	}
	return collect(files), nil
}

// cleanTarName brings the names that tar programs write for one file to one
// form: "./lib/", "lib" and "/lib" are "lib".
func cleanTarName(name string) string {
	return path.Clean(strings.TrimLeft(name, "/"))
}

// checkReplace refuses what would not unpack: something below a file, or a
// file in the place of a directory that is not empty.
func checkReplace(files map[string]Entry, e Entry) error {
	for dir := path.Dir(e.Path); dir != "."; dir = path.Dir(dir) {
		parent, ok := files[dir]
		if !ok {
			files[dir] = NewDir(dir)
			continue
		}
		if parent.Type != Dir {
			return fmt.Errorf("%s lies below %s, which is a %s", e.Path, dir, parent.Type)
		}
	}
	if old, ok := files[e.Path]; ok && old.Type == Dir && e.Type != Dir {
		return fmt.Errorf("%s is a %s, but was a directory before", e.Path, e.Type)
	}
	return nil
}

func collect(files map[string]Entry) []Entry {
	entries := make([]Entry, 0, len(files))
	for _, e := range files {
		entries = append(entries, e)
	}
	Sort(entries)
	return entries
}

// xattrPrefix is how star, and everyone after it, stores xattrs in pax records.
const xattrPrefix = "SCHILY.xattr."

func tarXattrs(hdr *tar.Header) map[string]string {
	var attrs map[string]string
	for key, value := range hdr.PAXRecords {
		if name, ok := strings.CutPrefix(key, xattrPrefix); ok {
			if attrs == nil {
				attrs = map[string]string{}
			}
			attrs[name] = value
		}
	}
	return attrs
}

// isSparse tells whether a pax archive stores the file in pieces.
func isSparse(hdr *tar.Header) bool {
	for key := range hdr.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func errSparse(name string) error {
	return fmt.Errorf("read tar: %s is a sparse file: make the archive without --sparse", name)
}
