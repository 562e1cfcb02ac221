package awstest

import (
	"context"
	"maps"
	"math"
	"slices"
	"time"
)

// A snapshot is an EBS snapshot, as EBS direct and EC2 share it.
type snapshot struct {
	id, description, parent string
	size                    int64 // of the volume in GiB
	encrypted               bool
	kmsKey                  string
	tags                    tags
	started                 time.Time
	shared                  map[string]bool // account IDs, or "all"

	// State while the snapshot is pending.
	timeout   time.Duration // counts from lastWrite
	lastWrite time.Time     // or the start
	allowed   float64       // blocks that PutRate allowed at allowedAt
	allowedAt time.Time     // zero before the first block
	writing   map[int32]blockWrite

	completed time.Time // may be in the future; zero before CompleteSnapshot
	failed    string    // the reason of the state error, or ""
	archived  time.Time // may be in the future; zero means never
	lock      lock

	blocks    map[int32]digest // including the inherited ones
	written   map[int32]int    // number of acknowledged writes
	noise     string           // seed of the unwritten blocks; "" means zeros
	lineage   string           // ID of its first ancestor
	rewritten int
}

// A blockWrite is an active request that writes a block.
type blockWrite struct {
	sum    digest
	client context.Context // done when the client disconnects
}

const gib = 1 << 30

// state returns pending, completed or error. The caller holds s.mu.
func (p *snapshot) state(now time.Time) string {
	switch {
	case p.failed != "":
		return "error"
	case p.completed.IsZero() && now.Sub(p.lastWrite) > p.timeout:
		p.failed = "the snapshot was not completed within its timeout"
		return "error"
	case p.completed.IsZero() || now.Before(p.completed):
		return "pending"
	}
	return "completed"
}

func (p *snapshot) progress(now time.Time) string {
	if p.state(now) == "completed" {
		return "100%"
	}
	return "0%"
}

// count returns the number of blocks of the volume.
func (p *snapshot) count() int64 { return p.size * (gib / BlockSize) }

// inside reports whether the volume has a block of that index.
func (p *snapshot) inside(index int64) bool {
	return 0 <= index && index < p.count() && index <= math.MaxInt32
}

// indexes returns the sorted indexes of the blocks that hold data.
func (p *snapshot) indexes() []int32 { return slices.Sorted(maps.Keys(p.blocks)) }

// newSnapshot adds a snapshot to a region, with the size, encryption and blocks
// of from, which may be nil. The caller holds s.mu.
func (s *Server) newSnapshot(r *region, from *snapshot) *snapshot {
	p := &snapshot{
		id: r.id("snap"), started: s.now(),
		shared: map[string]bool{}, writing: map[int32]blockWrite{}, blocks: map[int32]digest{}, written: map[int32]int{},
	}
	p.lastWrite = p.started
	p.lineage = p.id
	if from != nil {
		for index, sum := range from.blocks {
			s.blocks.use(sum)
			p.blocks[index] = sum
		}
		p.size, p.encrypted, p.kmsKey, p.noise, p.lineage = from.size, from.encrypted, from.kmsKey, from.noise, from.lineage
	}
	r.snapshots[p.id] = p
	return p
}

// removeSnapshot deletes a snapshot and releases its blocks, unless a rule of
// Recycle Bin retains it. The caller holds s.mu.
func (s *Server) removeSnapshot(r *region, p *snapshot) {
	s.purge(r)
	if keep := s.Knobs().RecycleBin; keep > 0 {
		r.bin.snapshots[p.id] = binned[*snapshot]{p, s.now(), s.now().Add(keep)}
		delete(r.snapshots, p.id)
		return
	}
	for _, sum := range p.blocks {
		s.blocks.release(sum)
	}
	delete(r.snapshots, p.id)
}
