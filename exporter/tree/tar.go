package tree

import (
	"archive/tar"
	"fmt"
	"io"
	"math"
	"path"
	"strings"
	"time"
)

// ReadTar reads the tree that unpacking an uncompressed tar archive gives: a
// later entry replaces an earlier one of the same path, a hard link is another
// name of the file that its target was at that point of the archive, and
// symbolic links in the place of directories are followed inside the tree. The
// result is sorted by path. It has the directories that the archive has: see
// AddParents.
//
// Contents are read from r when a writer asks for them. The format is that of
// POSIX.1-2001 (pax) with the extensions of archive/tar; global headers have no
// effect; sparse files are refused, because their content is not one piece of
// the archive.
func ReadTar(r io.ReaderAt, size int64) ([]Entry, error) {
	u := newUnpacker()
	if err := u.unpack(io.NewSectionReader(r, 0, size), false); err != nil {
		return nil, fmt.Errorf("read tar: %w", err)
	}
	return u.entries(), nil
}

// WriteTar writes entries, in their order, as one tar archive: POSIX.1-2001
// (pax) headers, numeric owners without names, extended attributes as
// SCHILY.xattr records, and hard links as links to the first entry of their
// group. All files have the modification time mtime.
func WriteTar(w io.Writer, entries []Entry, mtime time.Time) error {
	archive := tar.NewWriter(w)
	first := map[uint64]string{} // path by inode
	buf := make([]byte, 256<<10)
	for _, e := range entries {
		hdr := tarHeader(e)
		hdr.ModTime = mtime
		// Not every unpacker can link symbolic links.
		if e.Inode != 0 && e.Type != Symlink {
			if target, ok := first[e.Inode]; ok {
				hdr.Typeflag, hdr.Linkname, hdr.Size = tar.TypeLink, target, 0
			} else {
				first[e.Inode] = e.Path
			}
		}
		if err := archive.WriteHeader(hdr); err != nil {
			return fmt.Errorf("write tar: %s: %w", e.Path, err)
		}
		if hdr.Size == 0 {
			continue
		}
		if err := copyContent(archive, e, buf); err != nil {
			return fmt.Errorf("write tar: %s: %w", e.Path, err)
		}
	}
	if err := archive.Close(); err != nil {
		return fmt.Errorf("write tar: %w", err)
	}
	return nil
}

func copyContent(w io.Writer, e Entry, buf []byte) error {
	content, err := e.Open()
	if err != nil {
		return err
	}
	defer content.Close()
	n, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{content}, buf)
	if err == nil && n < e.Size {
		return fmt.Errorf("content is shorter than its size says by %d bytes", e.Size-n)
	}
	return err
}

var tarTypes = map[Type]byte{
	File: tar.TypeReg, Dir: tar.TypeDir, Symlink: tar.TypeSymlink, Char: tar.TypeChar, Block: tar.TypeBlock, FIFO: tar.TypeFifo,
}

// xattrPrefix is how star, and everyone after it, stores xattrs in pax records.
const xattrPrefix = "SCHILY.xattr."

func tarHeader(e Entry) *tar.Header {
	hdr := &tar.Header{
		Format:   tar.FormatPAX,
		Typeflag: tarTypes[e.Type],
		Name:     e.Path,
		Mode:     int64(e.Mode),
		Uid:      int(e.UID),
		Gid:      int(e.GID),
		Linkname: e.Link,
	}
	switch e.Type {
	case File:
		hdr.Size = e.Size
	case Dir:
		hdr.Name += "/"
	case Char, Block:
		hdr.Devmajor, hdr.Devminor = int64(e.Major), int64(e.Minor)
	}
	for name, value := range e.Xattrs {
		if hdr.PAXRecords == nil {
			hdr.PAXRecords = map[string]string{}
		}
		hdr.PAXRecords[xattrPrefix+name] = value
	}
	return hdr
}

// tarEntry gives the file that a header describes, without path and content.
// It is nil for hard links, which are no files of their own.
func tarEntry(hdr *tar.Header) (*Entry, error) {
	for _, n := range []int64{int64(hdr.Uid), int64(hdr.Gid), hdr.Devmajor, hdr.Devminor} {
		if n < 0 || n > math.MaxUint32 {
			return nil, fmt.Errorf("owner or device number %d is out of range", n)
		}
	}
	e := &Entry{Mode: uint32(hdr.Mode) & ModeMask, UID: uint32(hdr.Uid), GID: uint32(hdr.Gid)}
	for key, value := range hdr.PAXRecords {
		if name, ok := strings.CutPrefix(key, xattrPrefix); ok {
			if e.Xattrs == nil {
				e.Xattrs = map[string]string{}
			}
			e.Xattrs[name] = value
		}
		// Pax archives store the pieces of sparse files as regular files.
		if strings.HasPrefix(key, "GNU.sparse.") {
			hdr.Typeflag = tar.TypeGNUSparse
		}
	}
	switch hdr.Typeflag {
	case tar.TypeReg:
		e.Type, e.Size = File, hdr.Size
	case tar.TypeDir:
		e.Type = Dir
	case tar.TypeSymlink:
		e.Type, e.Mode, e.Link = Symlink, 0o777, hdr.Linkname
	case tar.TypeChar, tar.TypeBlock:
		e.Type = Char
		if hdr.Typeflag == tar.TypeBlock {
			e.Type = Block
		}
		e.Major, e.Minor = uint32(hdr.Devmajor), uint32(hdr.Devminor)
	case tar.TypeFifo:
		e.Type = FIFO
	case tar.TypeLink:
		return nil, nil
	case tar.TypeGNUSparse:
		return nil, fmt.Errorf("it is a sparse file: make the archive without --sparse")
	default:
		return nil, fmt.Errorf("it has type %q, which a root filesystem cannot hold", hdr.Typeflag)
	}
	return e, nil
}

// cleanTarName brings the names that tar programs write for one file to one
// form: "./lib/", "lib" and "/lib" are "lib".
func cleanTarName(name string) (string, error) {
	name = path.Clean(strings.TrimLeft(name, "/"))
	if name == "." {
		return name, nil
	}
	return name, CheckPath(name)
}
