package segment

import (
	"bytes"
	"fmt"
	"io"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/slipway-build/slipway/exporter/cpio"
	"github.com/slipway-build/slipway/exporter/tree"
)

// alignment is the alignment of segments in bytes. The kernel finds
// uncompressed archives only at multiples of it.
const alignment = 4

// archiveSize is the limit for the files of one archive in bytes; a file that is
// larger has an archive for itself. Processors compress the archives of a larger
// segment in parallel. With a lower limit, the compression ratio would be worse.
const archiveSize = 32 << 20

// Write writes entries, in their order, as a cpio segment. The bytes do not
// depend on the number of processors.
func Write(w io.Writer, entries []tree.Entry, c Compression) error {
	counter := &countingWriter{w: w}
	var group errgroup.Group
	group.SetLimit(min(runtime.GOMAXPROCS(0), c.maxParallel()))
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

// split divides entries into archives of about the same size. Hard links to one
// file stay together.
func split(entries []tree.Entry) [][]tree.Entry {
	var total int64
	last := map[uint64]int{} // index of the last entry by inode
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

// maxEarly is how many bytes an archive buffers before its turn comes.
// Compressed archives are usually smaller. A file that is larger than
// archiveSize has a larger archive and waits.
const maxEarly = 16 << 20

// turnWriter writes when its turn comes, when the channel is closed. Before, it
// buffers up to maxEarly bytes, then waits.
type turnWriter struct {
	w     io.Writer
	turn  <-chan struct{}
	early bytes.Buffer
}

func (t *turnWriter) Write(p []byte) (int, error) {
	select {
	case <-t.turn:
	default:
		if t.early.Len()+len(p) <= maxEarly {
			return t.early.Write(p)
		}
	}
	if err := t.finish(); err != nil {
		return 0, err
	}
	return t.w.Write(p)
}

// finish waits for the turn and writes what is buffered.
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
			// Like in archives of cpio(1), the last name has the content.
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

// linked reports whether e can share an inode with other entries. Symbolic links
// cannot, because the kernel does not create hard links to them.
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

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
