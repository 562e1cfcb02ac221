package ami

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	ebstypes "github.com/aws/aws-sdk-go-v2/service/ebs/types"
	"golang.org/x/sync/errgroup"

	"github.com/slipway-build/slipway/publisher/disk"
)

// abandonAfter is the number of minutes without a block after which AWS gives
// up a snapshot. It bounds the life of snapshots that no one removes.
const abandonAfter = 60

// An uploader writes the disk to a snapshot with the EBS direct APIs.
type uploader struct{ *target }

// upload returns a completed snapshot of the disk.
func upload(ctx context.Context, t *target) (string, error) { return uploader{t}.run(ctx) }

// run writes blocks to the snapshot in the journal, or to a new one, and
// completes it.
func (u uploader) run(ctx context.Context) (string, error) {
	parent, err := findParent(ctx, u.target)
	if err != nil {
		return "", err
	}
	if parent != nil { // whose blocks are not written
		if err := u.verifyDisk(ctx); err != nil {
			return "", err
		}
	}
	j := u.journal
	if j.Start == nil {
		if err := j.note(record{Start: u.request(parent)}); err != nil {
			return "", err
		}
	}
	if j.Snapshot == "" {
		if err := u.start(ctx); err != nil {
			return "", err
		}
	}
	d := u.publisher.disk
	blocks := parent.difference(d, j.Partial, j.written)
	if len(blocks) == 0 {
		// EBS does not complete a snapshot without blocks.
		blocks = []disk.Block{blockOf(d, 0)}
	}
	if err := u.write(ctx, blocks, parent); err != nil {
		return "", err
	}
	if err := u.complete(ctx, blocks); err != nil {
		return "", err
	}
	return j.Snapshot, nil
}

// request returns the request that starts the snapshot.
func (u uploader) request(parent *parent) *ebs.StartSnapshotInput {
	o := &u.publisher.options
	tags := u.tags(u.snapshotToken)
	tags = append(tags, manifestTags(u.publisher.disk, maxTags-spareTags-len(tags))...)
	input := &ebs.StartSnapshotInput{
		VolumeSize:  &o.VolumeSize,
		ClientToken: aws.String(digest([]string{u.journal.Run, "start"})),
		Description: &o.Name,
		Timeout:     aws.Int32(abandonAfter),
	}
	for _, t := range tags {
		input.Tags = append(input.Tags, ebstypes.Tag{Key: t.Key, Value: t.Value})
	}
	if parent != nil {
		input.ParentSnapshotId = &parent.id
	} else if o.Encrypt {
		input.Encrypted = aws.Bool(true)
		if u.key != "" {
			input.KmsKeyArn = &u.key
		}
	}
	return input
}

func (u uploader) start(ctx context.Context) error {
	u.step("starting a snapshot of %d GiB", u.publisher.options.VolumeSize)
	out, err := u.aws.blocks.start(ctx, u.journal.Start)
	if err != nil {
		return describe("start a snapshot", err)
	}
	if size := aws.ToInt32(out.BlockSize); size != disk.BlockSize {
		err := fail(ClassOther, "EBS uses blocks of %d bytes, but this program supports only %d: install a newer version", size, disk.BlockSize)
		return errors.Join(err, u.journal.note(record{Snapshot: *out.SnapshotId}))
	}
	// Unwritten blocks of an encrypted snapshot read as random data. The
	// response decides, because the account may encrypt by default.
	encrypted := aws.ToString(out.KmsKeyArn) != "" || out.SseType != "" && out.SseType != ebstypes.SSETypeNone
	return u.journal.note(record{Snapshot: *out.SnapshotId, KMSKey: aws.ToString(out.KmsKeyArn), Partial: encrypted})
}

// write writes the blocks that EBS has not acknowledged yet.
func (u uploader) write(ctx context.Context, blocks []disk.Block, parent *parent) error {
	count := &Blocks{Total: int(u.publisher.disk.Count())}
	if parent != nil {
		count.Parent = parent.id
	}
	u.image.Blocks = count
	var todo []disk.Block
	for _, block := range blocks {
		if u.journal.isWritten(block.Index) {
			count.Resumed++
		} else {
			todo = append(todo, block)
		}
	}
	count.Written = len(todo)
	count.Skipped = max(0, count.Total-len(blocks))
	monitor := u.monitor()
	monitor.Blocks.Add(int64(len(blocks)))
	monitor.Written.Add(int64(count.Resumed))
	monitor.Skipped.Add(int64(count.Skipped))
	u.step("writing %d of %d blocks to %s", len(todo), count.Total, u.journal.Snapshot)

	outer, window, buffers := ctx, u.aws.blocks.window, u.publisher.buffers
	group, ctx := errgroup.WithContext(ctx)
	for _, block := range todo {
		// The buffer comes first: a request that waits to be sent again holds
		// one, but is not in the window.
		var buffer *[disk.BlockSize]byte
		select {
		case buffer = <-buffers:
		case <-ctx.Done():
			continue
		}
		if err := window.acquire(ctx); err != nil {
			buffers <- buffer
			break // the group has the cause
		}
		if buffer == nil {
			buffer = new([disk.BlockSize]byte)
		}
		group.Go(func() error {
			took, err := u.put(ctx, block, buffer)
			buffers <- buffer
			if err != nil {
				window.release()
				return err
			}
			window.succeed(took)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return context.Cause(outer)
}

func diskChanged(d *disk.Disk) error { return &Error{ClassDisk, d.Mismatch()} }

// verifyDisk fails if the digests of the disk are wrong. EBS compares the blocks
// that are written with their digests. Before this package relies on digests in
// another way, it must call verifyDisk.
func (t *target) verifyDisk(ctx context.Context) error {
	if err := t.publisher.disk.Verify(ctx); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return &Error{ClassDisk, err}
	}
	return nil
}

// put writes a block and returns how long the last attempt took.
func (u uploader) put(ctx context.Context, block disk.Block, buffer *[disk.BlockSize]byte) (time.Duration, error) {
	d, snapshot := u.publisher.disk, u.journal.Snapshot
	if err := d.ReadBlock(block.Index, buffer); err != nil {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		return 0, fail(ClassDisk, "%s: %w", d.Name, err)
	}
	took, err := u.aws.blocks.put(ctx, snapshot, block, buffer[:])
	if err != nil {
		if ctx.Err() == nil && sha256.Sum256(buffer[:]) != block.Sum {
			return 0, diskChanged(d)
		}
		return 0, describe(fmt.Sprintf("write block %d of %s", block.Index, snapshot), err)
	}
	u.monitor().Bytes.Add(disk.BlockSize)
	u.monitor().Written.Add(1)
	return took, u.journal.note(record{Block: &block.Index})
}

// complete completes the snapshot and waits until it can be used.
func (u uploader) complete(ctx context.Context, blocks []disk.Block) error {
	again := u.journal.Complete // an earlier run may have succeeded
	if err := u.journal.note(record{Complete: true}); err != nil {
		return err
	}
	snapshot := u.journal.Snapshot
	u.step("completing %s", snapshot)
	attempts, err := u.aws.blocks.complete(ctx, snapshot, blocks)
	if err == nil {
		return u.aws.snapshots.wait(ctx, snapshot, 2*time.Hour)
	}
	if (again || attempts > 1) && isRefusal(err) && ClassOf(err) == ClassOther {
		// An earlier attempt may have succeeded, with its response lost.
		if u.aws.snapshots.wait(ctx, snapshot, patience) == nil {
			return nil
		}
	}
	return describe("complete "+snapshot, err)
}
