// Package segment makes the parts of a machine's root filesystem.
//
// A segment is an archive of one component's files: a cpio archive, as part of
// an initramfs, or a tar archive, as part of every other form of the root
// filesystem.
//
// Linux unpacks a sequence of cpio archives, each compressed or not, with NULs
// between them (Linux, Documentation/driver-api/early-userspace/
// buffer-format.rst). A cpio segment is one of them, or several if it is large:
// newc archives, of which each ends in its trailer and is one compression frame.
// The segment is padded with NULs to a multiple of 4 bytes. Initrd puts segments
// after each other; a later segment overrides files and attributes of an earlier
// one and removes nothing.
//
// Entries are sorted, inodes numbered from 1 and times are 0, so a segment
// depends on nothing but what it holds. Extended attributes, for which newc has no
// place, are noted beside a cpio segment, for Initrd. Tar segments are not compressed
// and hold everything; Tree puts them together.
package segment

import (
	"bytes"
	"fmt"
	"io"
	"path"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/slipway-build/slipway/exporter/cpio"
	"github.com/slipway-build/slipway/exporter/tree"
)

// alignment of a segment in bytes: the kernel looks for an uncompressed
// archive at such offsets only.
const alignment = 4

// archiveSize is what the files of one archive have at most, in bytes, unless one
// file alone has more. A larger segment becomes several archives, which
// processors compress at the same time; a smaller size would find fewer matches.
const archiveSize = 32 << 20

// Write writes entries, in their order, as a cpio segment to w. The bytes do not
// depend on the number of processors.
func Write(w io.Writer, entries []tree.Entry, c Compression) error {
	counter := &countingWriter{w: w}
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	turn := make(chan struct{})
	close(turn)
	for _, archive := range split(entries) {
		to := &turnWriter{w: counter, turn: turn}
		next := make(chan struct{})
		turn = next
		group.Go(func() error {
			defer func() { <-to.turn; close(next) }()
			err := writeCompressed(to, archive, c)
			if err == nil {
				err = to.finish()
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	_, err := w.Write(make([]byte, -counter.n&(alignment-1)))
	return err
}

// split cuts entries into archives of about the same size. Hard links of one
// file stay together.
func split(entries []tree.Entry) [][]tree.Entry {
	var total int64
	last := map[uint64]int{} // entry that has an inode
	for i, e := range entries {
		total += e.Size
		if linked(e) {
			last[e.Inode] = i
		}
	}
	size := total / max(1, (total+archiveSize-1)/archiveSize)
	var archives [][]tree.Entry
	var have int64
	begin, together := 0, 0
	for i, e := range entries {
		if have > 0 && have+e.Size > size && i > together {
			archives = append(archives, entries[begin:i])
			begin, have = i, 0
		}
		have += e.Size
		if linked(e) {
			together = max(together, last[e.Inode])
		}
	}
	return append(archives, entries[begin:])
}

// turnWriter keeps what is written before its turn comes, when turn is closed.
type turnWriter struct {
	w     io.Writer
	turn  <-chan struct{}
	early bytes.Buffer
}

func (t *turnWriter) Write(p []byte) (int, error) {
	select {
	case <-t.turn:
	default:
		return t.early.Write(p)
	}
	if err := t.finish(); err != nil {
		return 0, err
	}
	return t.w.Write(p)
}

// finish waits for the turn and writes what was kept.
func (t *turnWriter) finish() error {
	<-t.turn
	_, err := t.early.WriteTo(t.w)
	return err
}

// writeCompressed writes one archive as one compression frame.
func writeCompressed(w io.Writer, entries []tree.Entry, c Compression) error {
	compressor, err := c.newWriter(w)
	if err != nil {
		return err
	}
	if err := writeArchive(compressor, entries); err != nil {
		return err
	}
	if err := compressor.Close(); err != nil {
		return fmt.Errorf("compress: %w", err)
	}
	return nil
}

// hardLink is a file with several names in one archive.
type hardLink struct {
	inode uint32
	total uint32 // names in the archive
	seen  uint32 // names written
}

func writeArchive(w io.Writer, entries []tree.Entry) error {
	links := map[uint64]*hardLink{}
	for _, e := range entries {
		if !linked(e) {
			continue
		}
		if links[e.Inode] == nil {
			links[e.Inode] = &hardLink{}
		}
		links[e.Inode].total++
	}

	archive := cpio.NewWriter(w)
	buf := make([]byte, 256<<10)
	var inodes uint32
	for _, e := range entries {
		link := &hardLink{total: 1}
		if linked(e) {
			link = links[e.Inode]
		}
		if link.seen == 0 {
			inodes++
			link.inode = inodes
		}
		link.seen++

		h := cpio.Header{
			Name:  e.Path,
			Inode: link.inode,
			Mode:  cpioType[e.Type] | e.Mode,
			UID:   e.UID,
			GID:   e.GID,
			Links: link.total,
			Major: e.Major,
			Minor: e.Minor,
		}
		switch {
		case e.Type == tree.Dir:
			h.Links = 2
		case e.Type == tree.Symlink:
			h.Size = int64(len(e.Link))
		case e.Type == tree.File && link.seen == link.total:
			// As cpio(1) does: the last name brings the content.
			h.Size = e.Size
		}
		if err := archive.WriteHeader(h); err != nil {
			return err
		}
		if err := writeContent(archive, e, h.Size, buf); err != nil {
			return fmt.Errorf("%s: %w", e.Path, err)
		}
	}
	return archive.Close()
}

// linked tells whether e can share an inode with others. Symbolic links are
// always written apart, since the kernel does not link them.
func linked(e tree.Entry) bool {
	return e.Inode != 0 && e.Type != tree.Symlink && e.Type != tree.Dir
}

var cpioType = map[tree.Type]uint32{
	tree.File:    cpio.TypeFile,
	tree.Dir:     cpio.TypeDir,
	tree.Symlink: cpio.TypeSymlink,
	tree.Char:    cpio.TypeChar,
	tree.Block:   cpio.TypeBlock,
	tree.FIFO:    cpio.TypeFIFO,
}

func writeContent(w io.Writer, e tree.Entry, size int64, buf []byte) error {
	if e.Type == tree.Symlink {
		_, err := io.WriteString(w, e.Link)
		return err
	}
	if size == 0 {
		return nil
	}
	content, err := e.Open()
	if err != nil {
		return err
	}
	defer content.Close()
	_, err = io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{content}, buf)
	return err
}

// Under moves entries below the directory prefix, which gets the attributes of
// their root. The directories that lead there are added, 0755 root.
func Under(prefix string, entries []tree.Entry) []tree.Entry {
	if prefix == "" {
		return entries
	}
	moved := make([]tree.Entry, 0, len(entries))
	for _, e := range entries {
		e.Path = path.Join(prefix, e.Path)
		moved = append(moved, e)
	}
	return tree.AddParents(moved)
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
