package awstest

import (
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
)

// A Disk is the volume that EBS would create from a snapshot.
type Disk struct {
	// Size is the size of the volume in bytes.
	Size int64

	blobs  *blobs
	blocks map[int32]digest
	noise  string
}

// Disk returns the volume of a completed snapshot. It returns an error if the
// snapshot does not exist or is not completed. Later changes do not affect it.
func (s *Server) Disk(region, id string) (*Disk, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.region(region).snapshots[id]
	if p == nil {
		return nil, fmt.Errorf("snapshot %s does not exist in %s", id, region)
	}
	if state := p.state(s.now()); state != "completed" {
		return nil, fmt.Errorf("snapshot %s is %s, not completed", id, state)
	}
	return &Disk{p.size * gib, s.blocks, maps.Clone(p.blocks), p.noise}, nil
}

// ReadAt implements [io.ReaderAt].
func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read at negative offset %d", off)
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

// WriteTo sets the size of w and writes all blocks that hold data or noise. A
// file stays sparse elsewhere.
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

// noise fills p with the contents of an unwritten block at the offset off.
func noise(name string, index int32, p []byte, off int64) {
	const page = 4096 // each has its own seed, so that a read can start anywhere
	for n := 0; n < len(p); {
		at := off + int64(n)
		source := rand.NewChaCha8(sha256.Sum256(fmt.Appendf(nil, "%s/%d/%d", name, index, at/page)))
		var whole [page]byte
		_, _ = source.Read(whole[:]) // never fails
		n += copy(p[n:], whole[at%page:])
	}
}

// A SnapshotInfo describes a snapshot for tests, with details that AWS does not
// return.
type SnapshotInfo struct {
	ID, Region, State, Parent string
	// Size is the size of the volume in GiB.
	Size      int64
	Encrypted bool
	Tags      map[string]string
	// Shared are the accounts that may make volumes of the snapshot, or all.
	Shared []string
	// Blocks is the number of blocks that hold data. Written of them were
	// written to this snapshot, the others are inherited.
	Blocks, Written int
	// Rewritten is the number of writes to a block after an acknowledged one. A
	// write is not acknowledged if a Lost fault withheld the answer or the
	// client had disconnected.
	Rewritten int
}

// Snapshots returns all snapshots, sorted by region and ID.
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
				Shared: slices.Sorted(maps.Keys(p.shared)),
			})
		}
	}
	return out
}
