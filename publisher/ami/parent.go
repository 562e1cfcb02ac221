package ami

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"golang.org/x/sync/errgroup"

	"github.com/slipway-build/slipway/publisher/disk"
)

// A parent is the snapshot that a new one starts from.
type parent struct {
	id     string
	blocks map[int32]short // digests of the written blocks
}

var zeroSum = shorten(disk.Zero)

// blockOf returns a block of the disk, which may be zero.
func blockOf(d *disk.Disk, index int32) disk.Block {
	i, found := slices.BinarySearchFunc(d.Blocks, index, func(b disk.Block, i int32) int { return int(b.Index) - int(i) })
	if found {
		return d.Blocks[i]
	}
	return disk.Block{Index: index, Sum: disk.Zero}
}

// difference returns the blocks to write so that the snapshot reads as the
// disk. A nil parent has no blocks. Blocks that neither the parent nor this run
// writes read as zeros or, if random is set, as random data; that suffices for
// the blocks that the disk's map marks free. The blocks in written are always
// included unless the parent has them.
func (p *parent) difference(d *disk.Disk, random bool, written map[int32]bool) []disk.Block {
	if p == nil && !random {
		return d.Blocks
	}
	var before map[int32]short
	if p != nil {
		before = p.blocks
	}
	// The parent may have blocks beyond the end of the disk, which become zero.
	indexes := map[int32]bool{}
	for index := range before {
		indexes[index] = true
	}
	if random {
		for index := range d.Count() {
			if !d.Free(index) || written[index] {
				indexes[index] = true
			}
		}
	}
	for _, block := range d.Blocks {
		indexes[block.Index] = true
	}
	var blocks []disk.Block
	for _, index := range slices.Sorted(maps.Keys(indexes)) {
		block := blockOf(d, index)
		if sum, known := before[index]; !known || sum != shorten(block.Sum) {
			blocks = append(blocks, block)
		}
	}
	return blocks
}

// parents finds the parent of an upload.
type parents struct{ *target }

// findParent returns the parent in the journal or otherwise that of the options,
// or nil for none.
func findParent(ctx context.Context, t *target) (*parent, error) { return parents{t}.find(ctx) }

func (p parents) find(ctx context.Context) (*parent, error) {
	id := p.publisher.options.Parent
	if start := p.journal.Start; start != nil {
		id = aws.ToString(start.ParentSnapshotId)
	}
	var snapshot *types.Snapshot
	var err error
	switch id {
	case "":
		return nil, nil
	case "auto":
		snapshot, err = p.newest(ctx)
	default:
		snapshot, err = p.named(ctx, id)
	}
	if err != nil || snapshot == nil {
		return nil, err
	}
	return p.read(ctx, snapshot)
}

// newest returns the newest suitable snapshot of a disk with the same file
// name, or nil.
func (p parents) newest(ctx context.Context) (*types.Snapshot, error) {
	o, name := &p.publisher.options, diskTag(p.publisher.disk.Name)
	candidates, err := p.aws.snapshots.byTag(ctx, TagDisk, name)
	if err != nil {
		return nil, err
	}
	// EBS encrypts a child exactly as its parent. The account's settings apply
	// only if the options do not ask for encryption.
	encrypted := o.Encrypt
	if len(candidates) > 0 && !encrypted {
		if encrypted, err = p.aws.snapshots.encryptedByDefault(ctx); err != nil {
			return nil, err
		}
	}
	for _, s := range candidates {
		if aws.ToInt32(s.VolumeSize) <= int32(o.VolumeSize) && aws.ToBool(s.Encrypted) == encrypted && (p.key == "" || p.key == aws.ToString(s.KmsKeyId)) {
			return &s, nil
		}
	}
	p.step("no suitable snapshot of %s: uploading the whole disk", name)
	return nil, nil
}

// named returns the snapshot with an ID, if it is suitable.
func (p parents) named(ctx context.Context, id string) (*types.Snapshot, error) {
	o := &p.publisher.options
	found, err := p.aws.snapshots.byID(ctx, id)
	if err != nil {
		return nil, describe("look for the parent "+id, err)
	}
	key := aws.ToString(found.KmsKeyId)
	switch {
	case found.State != types.SnapshotStateCompleted:
		return nil, fail(ClassUsage, "the parent %s is %s: it must be completed", id, found.State)
	case found.StorageTier == types.StorageTierArchive:
		return nil, fail(ClassUsage, "the parent %s is archived: restore it with aws ec2 restore-snapshot-tier, or use --parent auto", id)
	case aws.ToBool(found.Encrypted) && o.sharesWithAll():
		return nil, fail(ClassUsage, "the parent %s is encrypted, and so is its child, which cannot be shared with all: use another parent, or share the image with accounts", id)
	case aws.ToInt32(found.VolumeSize) > int32(o.VolumeSize):
		return nil, fail(ClassUsage, "the parent %s has %d GiB, but the volume has only %d: add --volume-size %d", id, *found.VolumeSize, o.VolumeSize, *found.VolumeSize)
	// EBS encrypts a child exactly as its parent, with the same key.
	case o.Encrypt && !aws.ToBool(found.Encrypted):
		return nil, fail(ClassUsage, "the parent %s is not encrypted, so its child cannot be: use --parent auto, omit --encrypt and --kms-key, or encrypt a copy of the parent first", id)
	case p.key != "" && p.key != key:
		return nil, fail(ClassUsage, "the parent %s is encrypted with %s, so its child has the same key: use --parent auto, or omit --kms-key", id, key)
	}
	return found, nil
}

// read returns the digests of a snapshot's blocks. Those of groups that are the
// same on the disk are known from its manifest. It reads the other blocks.
func (p parents) read(ctx context.Context, snapshot *types.Snapshot) (*parent, error) {
	from := &parent{id: *snapshot.SnapshotId, blocks: map[int32]short{}}
	tokens, err := p.aws.blocks.list(ctx, from.id)
	if err != nil {
		return nil, describe("list the blocks of the parent "+from.id, err)
	}
	m, err := manifestOf(snapshot.Tags)
	if err != nil {
		p.step("%s: %v: reading its blocks instead", from.id, err)
	}
	unknown := tokens
	if m != nil {
		unknown = from.apply(m, p.publisher.disk, tokens)
	}
	if len(unknown) == 0 {
		return from, nil
	}

	p.step("reading %d blocks of the parent %s", len(unknown), from.id)
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(min(32, p.publisher.options.Workers))
	for index, token := range unknown {
		group.Go(func() error {
			sum, err := p.aws.blocks.sum(ctx, from.id, index, token, nil)
			if err != nil {
				return describe("read the parent "+from.id, err)
			}
			mu.Lock()
			defer mu.Unlock()
			from.blocks[index] = shorten(sum)
			return nil
		})
	}
	return from, group.Wait()
}

// apply sets the digests of the blocks that a manifest reveals. It returns the
// others, with their tokens: a manifest of groups reveals only those in the groups
// that are the same on the disk.
func (p *parent) apply(m *manifest, d *disk.Disk, tokens map[int32]string) (unknown map[int32]string) {
	own := map[int32]short{}
	if m.group > 1 {
		for _, g := range groupsOf(d.Blocks, m.group) {
			own[g.Index] = shorten(g.Sum)
		}
	}
	unknown = map[int32]string{}
	for index, token := range tokens {
		sum, listed := m.groups[index/m.group]
		switch {
		case !listed: // a manifest lists no zero blocks
			p.blocks[index] = zeroSum
		case m.group == 1:
			p.blocks[index] = sum
		case own[index/m.group] == sum:
			p.blocks[index] = shorten(blockOf(d, index).Sum)
		default:
			unknown[index] = token
		}
	}
	return unknown
}
