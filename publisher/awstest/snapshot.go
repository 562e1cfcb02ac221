package awstest

import (
	"context"
	"maps"
	"math"
	"slices"
	"time"
)

// snapshot is an EBS snapshot: what EBS direct and EC2 know of the same thing.
type snapshot struct {
	id, description, parent string
	size                    int64 // of the volume in GiB
	encrypted               bool
	kmsKey                  string
	tags                    tags
	started                 time.Time
	shared                  map[string]bool // accounts, and "all"

	// While it is written.
	timeout time.Duration    // after the last block, or the start
	touched time.Time        // when that was
	allowed float64          // blocks that PutRate allows at the time counted
	counted time.Time        // zero before the first block
	writing map[int32]flight // blocks whose request is under way

	completed time.Time // when it turns completed; zero while it is written
	failed    string    // why it is in the state error

	blocks    map[int32]digest // inherited ones too
	written   map[int32]int    // how often each was written and acknowledged
	noise     string           // names what unwritten blocks hold; they are zeros if it is empty
	lineage   string           // the first of its parents
	rewritten int
}

// flight is a request that writes a block.
type flight struct {
	sum    digest
	client context.Context // done when the client is gone
}

const gib = 1 << 30

// state is as EC2 and EBS direct name it. The caller holds s.mu.
func (p *snapshot) state(now time.Time) string {
	switch {
	case p.failed != "":
		return "error"
	case p.completed.IsZero() && now.Sub(p.touched) > p.timeout:
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

// count is how many blocks the volume has.
func (p *snapshot) count() int64 { return p.size * (gib / BlockSize) }

// inside says whether a block can be in the volume.
func (p *snapshot) inside(index int64) bool {
	return 0 <= index && index < p.count() && index <= math.MaxInt32
}

// indexes are those of all blocks that hold data, in ascending order.
func (p *snapshot) indexes() []int32 { return slices.Sorted(maps.Keys(p.blocks)) }

// newSnapshot puts a snapshot into a region. The caller holds s.mu.
func (s *Server) newSnapshot(r *region, from *snapshot) *snapshot {
	p := &snapshot{
		id: r.id("snap"), started: s.now(),
		shared: map[string]bool{}, writing: map[int32]flight{}, blocks: map[int32]digest{}, written: map[int32]int{},
	}
	p.touched = p.started
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

// drop takes a snapshot away. The caller holds s.mu.
func (s *Server) drop(r *region, p *snapshot) {
	for _, sum := range p.blocks {
		s.blocks.release(sum)
	}
	delete(r.snapshots, p.id)
}
