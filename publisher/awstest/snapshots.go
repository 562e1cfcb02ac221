package awstest

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
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

// encryption settles whether a new snapshot is encrypted, and by which key.
func (c *call) encryption(asked bool, key string) (bool, string, error) {
	if key != "" && !asked {
		return false, "", violation("ValidationException", "a KMS key needs Encrypted").withReason("INVALID_PARAMETER_VALUE")
	}
	if key != "" && !keyPattern.MatchString(key) {
		return false, "", violation("ValidationException", "%q is no KMS key", key).withReason("INVALID_CUSTOMER_KEY")
	}
	if parts := strings.Split(key, ":"); len(parts) > 3 && parts[3] != c.Region {
		return false, "", violation("ValidationException", "the KMS key %s is not in %s", key, c.Region).withReason("INVALID_CUSTOMER_KEY")
	}
	if !asked && !c.knobs.EncryptByDefault {
		return false, "", nil
	}
	return true, keyARN(c.Region, key), nil
}

// keyPattern is an ARN, an id or an alias of a KMS key.
var keyPattern = regexp.MustCompile(`^(arn:aws[\w-]*:kms:[\w-]+:\d{12}:(key|alias)/)?[\w/-]+$`)

// keyARN names the key in full; "" is the account's default.
func keyARN(region, key string) string {
	if strings.HasPrefix(key, "arn:") {
		return key
	}
	key = cmp.Or(key, "00000000-0000-4000-8000-0000000000eb")
	if !strings.HasPrefix(key, "alias/") {
		key = "key/" + key
	}
	return "arn:aws:kms:" + region + ":" + Account + ":" + key
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

// tags are sorted by key.
type tags []tag

type tag struct {
	Key   string `xml:"key"`
	Value string `xml:"value"`
}

// newTags checks tags as EC2 does: at most 50, keys of at most 128 and values of at most 256 characters.
func newTags(list []tag) (tags, error) {
	t := slices.Clone(list)
	slices.SortFunc(t, func(a, b tag) int { return cmp.Compare(a.Key, b.Key) })
	for i, one := range t {
		switch {
		case one.Key == "" || len([]rune(one.Key)) > 128 || len([]rune(one.Value)) > 256:
			return nil, violation("InvalidParameterValue", "tag %q: a key has 1 to 128 characters, a value up to 256", one.Key)
		case strings.HasPrefix(strings.ToLower(one.Key), "aws:"):
			return nil, violation("InvalidParameterValue", "tag %q: keys with aws: are reserved", one.Key)
		case i > 0 && one.Key == t[i-1].Key:
			return nil, violation("InvalidParameterValue", "tag %q is there twice", one.Key)
		}
	}
	if len(t) > 50 {
		return nil, violation("TagLimitExceeded", "there are %d tags, but 50 at most", len(t))
	}
	return t, nil
}

func (t tags) plain() map[string]string {
	m := map[string]string{}
	for _, one := range t {
		m[one.Key] = one.Value
	}
	return m
}

// merge returns t with the tags of more, which win.
func (t tags) merge(more tags) (tags, error) {
	m := t.plain()
	maps.Copy(m, more.plain())
	var list []tag
	for key, value := range m {
		list = append(list, tag{key, value})
	}
	return newTags(list)
}
