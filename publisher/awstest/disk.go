package awstest

import (
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
)

// Disk is the volume that a snapshot makes.
type Disk struct {
	// Size of the volume in bytes.
	Size int64

	blobs  *blobs
	blocks map[int32]digest
	noise  string
}

// Disk returns the volume of a completed snapshot. It shows what the snapshot held at the time of the call.
func (s *Server) Disk(region, id string) (*Disk, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.region(region).snapshots[id]
	if p == nil {
		return nil, fmt.Errorf("there is no snapshot %s in %s", id, region)
	}
	if state := p.state(s.now()); state != "completed" {
		return nil, fmt.Errorf("snapshot %s is %s, not completed", id, state)
	}
	return &Disk{p.size * gib, s.blocks, maps.Clone(p.blocks), p.noise}, nil
}

// ReadAt implements [io.ReaderAt].
func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read at the negative offset %d", off)
	}
	n := 0
	for n < len(p) && off < d.Size {
		index, at := int32(off/BlockSize), off%BlockSize
		part := p[n:min(len(p), n+int(BlockSize-at))]
		switch sum, ok := d.blocks[index]; {
		case ok:
			if err := d.blobs.readAt(sum, part, at); err != nil {
				return n, fmt.Errorf("read block %d: %w", index, err)
			}
		case d.noise != "":
			noise(d.noise, index, part, at)
		default:
			clear(part)
		}
		n, off = n+len(part), off+int64(len(part))
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteTo writes all blocks that hold data, or noise, at their places, and sets w's size; a file stays sparse.
func (d *Disk) WriteTo(w interface {
	io.WriterAt
	Truncate(int64) error
}) error {
	if err := w.Truncate(d.Size); err != nil {
		return err
	}
	block := make([]byte, BlockSize)
	for index := range int32(d.Size / BlockSize) {
		if sum, ok := d.blocks[index]; sum == zeroDigest || !ok && d.noise == "" {
			continue
		}
		at := int64(index) * BlockSize
		if _, err := d.ReadAt(block, at); err != nil {
			return err
		}
		if _, err := w.WriteAt(block, at); err != nil {
			return err
		}
	}
	return nil
}

// noise fills p with what lies at off of a block where nobody wrote.
func noise(name string, index int32, p []byte, off int64) {
	const page = 4096 // so that a read in the middle need not begin at the start
	for n := 0; n < len(p); {
		at := off + int64(n)
		source := rand.NewChaCha8(sha256.Sum256(fmt.Appendf(nil, "%s/%d/%d", name, index, at/page)))
		var whole [page]byte
		_, _ = source.Read(whole[:]) // never fails
		n += copy(p[n:], whole[at%page:])
	}
}

// SnapshotInfo is what a test may want to know of a snapshot and AWS would not tell.
type SnapshotInfo struct {
	ID, Region, State, Parent string
	// Size of the volume in GiB.
	Size      int64
	Encrypted bool
	Tags      map[string]string
	// Blocks hold data: Written were put here, the others inherited.
	Blocks, Written int
	// Rewritten counts writes of a block whose former write was acknowledged, whatever they wrote. An answer that a Lost
	// fault withheld, or that found the client gone, is no acknowledgement; one that was sent is, read or not.
	Rewritten int
}

// Snapshots returns all snapshots, sorted by region and id.
func (s *Server) Snapshots() []SnapshotInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []SnapshotInfo
	for _, name := range slices.Sorted(maps.Keys(s.regions)) {
		r := s.regions[name]
		for _, id := range slices.Sorted(maps.Keys(r.snapshots)) {
			p := r.snapshots[id]
			out = append(out, SnapshotInfo{
				ID: id, Region: name, State: p.state(s.now()), Parent: p.parent, Size: p.size, Encrypted: p.encrypted,
				Tags: p.tags.plain(), Blocks: len(p.blocks), Written: len(p.written), Rewritten: p.rewritten,
			})
		}
	}
	return out
}
