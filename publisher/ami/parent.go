package ami

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"maps"
	"slices"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"golang.org/x/sync/errgroup"

	"github.com/slipway-build/slipway/publisher/disk"
)

// parent is a snapshot that a new one begins with, and the digests of the blocks
// that were written to it.
type parent struct {
	id     string
	blocks map[int32]short
}

var zeroSum = shorten(disk.Zero)

func sumOf(d *disk.Disk, index int32) disk.Block {
	i, found := slices.BinarySearchFunc(d.Blocks, index, func(b disk.Block, i int32) int { return int(b.Index) - int(i) })
	if found {
		return d.Blocks[i]
	}
	return disk.Block{Index: index, Sum: disk.Zero}
}

// difference lists the blocks to write over the parent, nil for none, so that
// the snapshot reads as the disk. What was not written before reads as zeros,
// or as noise if noisy, which is good enough where the disk is free. Blocks that
// this run has written already are always among them.
func (p *parent) difference(d *disk.Disk, noisy bool, written map[int32]bool) []disk.Block {
	if p == nil && !noisy {
		return d.Blocks
	}
	var before map[int32]short
	if p != nil {
		before = p.blocks
	}
	// Behind the end of the disk only what the parent has must go.
	indexes := map[int32]bool{}
	for index := range before {
		indexes[index] = true
	}
	if noisy {
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
		block := sumOf(d, index)
		if sum, known := before[index]; !known || sum != shorten(block.Sum) {
			blocks = append(blocks, block)
		}
	}
	return blocks
}

// parent finds the snapshot to begin with, and what is in it. A journal already
// has it.
func (r *region) parent(ctx context.Context) (*parent, error) {
	id := r.Parent
	if start := r.journal.Start; start != nil {
		id = aws.ToString(start.ParentSnapshotId)
	}
	switch id {
	case "":
		return nil, nil
	case "auto":
		candidates, err := r.tagged(ctx, TagDisk, diskTag(r.disk.Name))
		if err != nil {
			return nil, err
		}
		// A child is encrypted exactly as its parent, so the parent must be as
		// the child shall be; only the account's settings go over what is asked.
		encrypted := r.Encrypt
		if len(candidates) > 0 && !encrypted {
			if encrypted, err = r.encryptsAlways(ctx); err != nil {
				return nil, err
			}
		}
		for _, s := range candidates {
			if aws.ToInt32(s.VolumeSize) <= int32(r.Size) && aws.ToBool(s.Encrypted) == encrypted && (r.KMSKey == "" || r.KMSKey == aws.ToString(s.KmsKeyId)) {
				return r.read(ctx, s)
			}
		}
		r.step("no snapshot of %s to begin with: uploading all", diskTag(r.disk.Name))
		return nil, nil
	}
	found, err := r.describeSnapshot(ctx, id)
	if err != nil {
		return nil, describe("look for the parent "+id, err)
	}
	if found.State != types.SnapshotStateCompleted {
		return nil, fail(Usage, "the parent %s is %s: it must be completed", id, found.State)
	}
	if aws.ToInt32(found.VolumeSize) > int32(r.Size) {
		return nil, fail(Usage, "the parent %s has %d GiB, more than the disk with %d: add --volume-size %d", id, *found.VolumeSize, r.Size, *found.VolumeSize)
	}
	// EBS encrypts a child exactly as its parent, with the same key.
	if r.Encrypt && !aws.ToBool(found.Encrypted) {
		return nil, fail(Usage, "the parent %s is not encrypted, so what begins with it cannot be: use --parent auto, leave out --encrypt and --kms-key, or encrypt a copy of it first", id)
	}
	if key := aws.ToString(found.KmsKeyId); r.KMSKey != "" && r.KMSKey != key {
		return nil, fail(Usage, "the parent %s is encrypted with %s, so what begins with it has the same key: use --parent auto, or leave out --kms-key", id, key)
	}
	return r.read(ctx, *found)
}

func (r *region) encryptsAlways(ctx context.Context) (bool, error) {
	out, err := try(ctx, r.caller, func(ctx context.Context) (*ec2.GetEbsEncryptionByDefaultOutput, error) {
		return r.ec2.GetEbsEncryptionByDefault(ctx, &ec2.GetEbsEncryptionByDefaultInput{})
	})
	if err != nil {
		return false, describe("ask whether the account encrypts by default", err)
	}
	return aws.ToBool(out.EbsEncryptionByDefault), nil
}

// read finds the digests of a snapshot's blocks: in its manifest, or where it
// has none, in the blocks.
func (r *region) read(ctx context.Context, snapshot types.Snapshot) (*parent, error) {
	p := &parent{id: *snapshot.SnapshotId, blocks: map[int32]short{}}
	tokens, err := r.list(ctx, p.id)
	if err != nil {
		return nil, describe("list the blocks of the parent "+p.id, err)
	}
	manifest, err := manifestOf(snapshot.Tags)
	if err != nil {
		r.step("%s: %v: reading it", p.id, err)
	}
	if err == nil && manifest != nil {
		for index := range tokens {
			p.blocks[index] = zeroSum // unless the manifest knows better
		}
		for index, sum := range manifest {
			if _, written := tokens[index]; written {
				p.blocks[index] = sum
			}
		}
		return p, nil
	}

	r.step("reading %d blocks of the parent %s", len(tokens), p.id)
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(min(32, r.Workers))
	for index, token := range tokens {
		group.Go(func() error {
			sum, err := try(ctx, r.caller, func(ctx context.Context) (disk.Sum, error) { return r.get(ctx, p.id, index, token) },
				func(err error) bool { return errors.Is(err, errChecksum) || errors.Is(err, io.ErrUnexpectedEOF) })
			if err != nil {
				return describe("read the parent "+p.id, err)
			}
			mu.Lock()
			defer mu.Unlock()
			p.blocks[index] = shorten(sum)
			return nil
		})
	}
	return p, group.Wait()
}

// list returns the blocks that were written to a complete snapshot, with the
// tokens to read them.
func (r *region) list(ctx context.Context, snapshot string) (map[int32]string, error) {
	tokens := map[int32]string{}
	input := &ebs.ListSnapshotBlocksInput{SnapshotId: &snapshot, MaxResults: aws.Int32(10000)}
	for {
		out, err := try(ctx, r.caller, func(ctx context.Context) (*ebs.ListSnapshotBlocksOutput, error) {
			return r.ebs.ListSnapshotBlocks(ctx, input)
		})
		if err != nil {
			return nil, err
		}
		if size := aws.ToInt32(out.BlockSize); size != disk.BlockSize {
			return nil, fail(Other, "%s has blocks of %d bytes, this program writes %d", snapshot, size, disk.BlockSize)
		}
		for _, block := range out.Blocks {
			tokens[*block.BlockIndex] = *block.BlockToken
		}
		if input.NextToken = out.NextToken; aws.ToString(input.NextToken) == "" {
			return tokens, nil
		}
	}
}

// get reads a block and checks it against the digest that comes with it.
func (r *region) get(ctx context.Context, snapshot string, index int32, token string) (disk.Sum, error) {
	if err := r.rate.Wait(ctx); err != nil {
		return disk.Sum{}, err
	}
	out, err := r.ebs.GetSnapshotBlock(ctx, &ebs.GetSnapshotBlockInput{SnapshotId: &snapshot, BlockIndex: &index, BlockToken: &token})
	if err != nil {
		return disk.Sum{}, err
	}
	defer out.BlockData.Close()
	h := sha256.New()
	if n, err := io.Copy(h, out.BlockData); err != nil {
		return disk.Sum{}, err
	} else if n != disk.BlockSize {
		return disk.Sum{}, io.ErrUnexpectedEOF
	}
	sum := disk.Sum(h.Sum(nil))
	if aws.ToString(out.Checksum) != base64.StdEncoding.EncodeToString(sum[:]) {
		return disk.Sum{}, errChecksum
	}
	return sum, nil
}

var errChecksum = errors.New("a block came with a wrong checksum")
