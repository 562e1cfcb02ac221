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

// ReadTar reads the tree that an uncompressed tar archive unpacks to, sorted by
// path. A later entry replaces an earlier one with the same path. A hard link is
// another name for the file that its target names at that point of the archive.
// Symbolic links to directories are followed within the tree. Directories without
// an entry in the archive are missing: see AddParents.
//
// Writers read the contents from r later. The format is POSIX.1-2001 (pax) with
// the extensions of archive/tar. Global headers are ignored. Sparse files are
// rejected, because their content is not contiguous in the archive.
func ReadTar(r io.ReaderAt, size int64) ([]Entry, error) {
	u := newUnpacker()
	if err := u.unpack(io.NewSectionReader(r, 0, size), false); err != nil {
		return nil, fmt.Errorf("read tar: %w", err)
	}
	return u.entries(), nil
}

// WriteTar writes entries, in their order, as a tar archive with POSIX.1-2001 (pax)
// headers, numeric owners without names, and extended attributes as SCHILY.xattr
// records. Hard links refer to the first entry with the same inode. All files
// have the modification time mtime.
func WriteTar(w io.Writer, entries []Entry, mtime time.Time) error {
	archive := tar.NewWriter(w)
	first := map[uint64]string{} // path by inode
	buf := make([]byte, 256<<10)
	for _, e := range entries {
		hdr := tarHeader(e)
		hdr.ModTime = mtime
		// Not all programs can create hard links to symbolic links.
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
		return fmt.Errorf("content is %d bytes shorter than its size", e.Size-n)
	}
	return err
}

var tarTypes = map[Type]byte{
	File: tar.TypeReg, Dir: tar.TypeDir, Symlink: tar.TypeSymlink, Char: tar.TypeChar, Block: tar.TypeBlock, FIFO: tar.TypeFifo,
}

// xattrPrefix is the prefix of pax records with extended attributes, which star
// introduced.
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

// tarEntry returns the file that a header describes, without path and content. It
// returns nil for hard links.
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
		// Pax archives store sparse files as regular files.
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
		return nil, fmt.Errorf("type %q is not supported in a root filesystem", hdr.Typeflag)
	}
	return e, nil
}

// cleanTarName returns the path for a name in an archive: tar programs write
// "./lib/", "lib" or "/lib" for "lib".
func cleanTarName(name string) (string, error) {
	name = path.Clean(strings.TrimLeft(name, "/"))
	if name == "." {
		return name, nil
	}
	return name, CheckPath(name)
}
