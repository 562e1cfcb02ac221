package ami

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	ebstypes "github.com/aws/aws-sdk-go-v2/service/ebs/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"golang.org/x/sync/errgroup"

	"github.com/slipway-build/slipway/publisher/disk"
)

// lifetime is after how many minutes without a block AWS gives up a snapshot,
// so that also what nobody cleans goes away.
const lifetime = 60

// snapshot returns a complete snapshot of the disk: the one that the last run
// had begun, one that somebody has already made, or a new one.
func (r *region) snapshot(ctx context.Context) (string, error) {
	if id, err := r.begun(ctx); err != nil || id != "" {
		return id, err
	}
	if id, err := r.made(ctx); err != nil || id != "" {
		return id, err
	}
	if r.Method == Import {
		return r.importSnapshot(ctx)
	}
	return r.upload(ctx)
}

// begun continues the snapshot in the journal, if it can still be completed.
func (r *region) begun(ctx context.Context) (string, error) {
	switch j := r.journal; {
	case j.Object != "":
		return r.importSnapshot(ctx)
	case j.Start == nil:
		return "", nil
	case j.Snapshot != "":
		found, err := r.describeSnapshot(ctx, j.Snapshot)
		if err != nil && errorCode(err) != "InvalidSnapshot.NotFound" {
			return "", describe("look for "+j.Snapshot, err)
		}
		if err == nil && found.State == types.SnapshotStateCompleted {
			r.step("continuing with %s, which is complete", j.Snapshot)
			return j.Snapshot, nil
		}
		if err != nil || found.State != types.SnapshotStatePending {
			r.step("%s has ended: beginning anew", j.Snapshot)
			return "", r.undo(ctx)
		}
		r.step("continuing %s", j.Snapshot)
	}
	return r.upload(ctx)
}

// made looks for a snapshot of the same content, encrypted in the same way.
func (r *region) made(ctx context.Context) (string, error) {
	snapshots, err := r.tagged(ctx, TagToken, r.source)
	if err != nil || len(snapshots) == 0 {
		return "", err
	}
	r.step("using %s, which has the same content", *snapshots[0].SnapshotId)
	r.Monitor.Skipped.Add(int64(r.disk.Count()))
	return *snapshots[0].SnapshotId, nil
}

// tagged lists our own complete snapshots with a tag, the newest first.
func (r *region) tagged(ctx context.Context, key, value string) ([]types.Snapshot, error) {
	var all []types.Snapshot
	pages := ec2.NewDescribeSnapshotsPaginator(r.ec2, &ec2.DescribeSnapshotsInput{
		OwnerIds: []string{"self"},
		Filters: []types.Filter{
			{Name: aws.String("tag:" + key), Values: []string{value}},
			{Name: aws.String("status"), Values: []string{"completed"}},
		},
	})
	for pages.HasMorePages() {
		page, err := try(ctx, r.caller, func(ctx context.Context) (*ec2.DescribeSnapshotsOutput, error) { return pages.NextPage(ctx) })
		if err != nil {
			return nil, describe("look for snapshots", err)
		}
		all = append(all, page.Snapshots...)
	}
	slices.SortStableFunc(all, func(a, b types.Snapshot) int { return aws.ToTime(b.StartTime).Compare(aws.ToTime(a.StartTime)) })
	return all, nil
}

func (r *region) describeSnapshot(ctx context.Context, id string) (*types.Snapshot, error) {
	out, err := try(ctx, r.caller, func(ctx context.Context) (*ec2.DescribeSnapshotsOutput, error) {
		return r.ec2.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{id}})
	})
	if err != nil {
		return nil, err
	}
	if len(out.Snapshots) != 1 {
		return nil, fmt.Errorf("EC2 described %d snapshots instead of %s", len(out.Snapshots), id)
	}
	return &out.Snapshots[0], nil
}

// upload writes blocks until the snapshot of the journal is complete.
func (r *region) upload(ctx context.Context) (string, error) {
	from, err := r.parent(ctx)
	if err != nil {
		return "", err
	}
	j := r.journal
	if j.Start == nil {
		if err := r.prepare(from); err != nil {
			return "", err
		}
	}
	if j.Snapshot == "" {
		r.step("starting a snapshot of %d GiB", r.Size)
		out, err := r.startSnapshot(ctx)
		if err != nil {
			return "", describe("start a snapshot", err)
		}
		if size := aws.ToInt32(out.BlockSize); size != disk.BlockSize {
			err := fail(Other, "EBS wants blocks of %d bytes, this program writes %d: look for a newer one", size, disk.BlockSize)
			return "", errors.Join(err, j.note(record{Snapshot: *out.SnapshotId}))
		}
		// What is not written reads as noise where the snapshot is encrypted,
		// also if only the account's settings made it so.
		encrypted := aws.ToString(out.KmsKeyArn) != "" || out.SseType != "" && out.SseType != ebstypes.SSETypeNone
		if err := j.note(record{Snapshot: *out.SnapshotId, KMSKey: aws.ToString(out.KmsKeyArn), Partial: encrypted}); err != nil {
			return "", err
		}
	}
	blocks := from.difference(r.disk, j.Partial, j.written)
	if len(blocks) == 0 {
		// EBS completes no snapshot without a block.
		blocks = []disk.Block{sumOf(r.disk, 0)}
	}
	if err := r.write(ctx, blocks, from); err != nil {
		return "", err
	}
	if err := r.complete(ctx, blocks); err != nil {
		return "", err
	}
	return j.Snapshot, nil
}

// prepare makes the request that starts the snapshot.
func (r *region) prepare(from *parent) error {
	tags := r.tags(r.source)
	tags = append(tags, manifestTags(r.disk, maxTags-len(tags))...)
	input := &ebs.StartSnapshotInput{
		VolumeSize:  aws.Int64(r.Size),
		ClientToken: aws.String(digest([]string{r.journal.Run, "start"})),
		Description: aws.String(r.Name),
		Timeout:     aws.Int32(lifetime),
	}
	for _, t := range tags {
		input.Tags = append(input.Tags, ebstypes.Tag{Key: t.Key, Value: t.Value})
	}
	if from != nil {
		input.ParentSnapshotId = &from.id
	} else if r.Encrypt {
		input.Encrypted = aws.Bool(true)
		if r.KMSKey != "" {
			input.KmsKeyArn = &r.KMSKey
		}
	}
	return r.journal.note(record{Start: input})
}

// startSnapshot starts the snapshot, or finds the one it has started before: the
// token is the journal's.
func (r *region) startSnapshot(ctx context.Context) (*ebs.StartSnapshotOutput, error) {
	return try(ctx, r.caller, func(ctx context.Context) (*ebs.StartSnapshotOutput, error) {
		return r.ebs.StartSnapshot(ctx, r.journal.Start)
	})
}

// write writes the blocks that have not been acknowledged yet.
func (r *region) write(ctx context.Context, blocks []disk.Block, from *parent) error {
	count := &Blocks{Total: int(r.disk.Count())}
	if from != nil {
		count.Parent = from.id
	}
	r.out.Blocks = count
	var todo []disk.Block
	for _, block := range blocks {
		if r.journal.isWritten(block.Index) {
			count.Resumed++
		} else {
			todo = append(todo, block)
		}
	}
	count.Written = len(todo)
	count.Skipped = max(0, count.Total-len(blocks))
	r.Monitor.Blocks.Add(int64(len(blocks)))
	r.Monitor.Written.Add(int64(count.Resumed))
	r.Monitor.Skipped.Add(int64(count.Skipped))
	r.step("writing %d of %d blocks to %s", len(todo), count.Total, r.journal.Snapshot)

	outer := ctx
	group, ctx := errgroup.WithContext(ctx)
	for _, block := range todo {
		if err := r.window.acquire(ctx); err != nil {
			break // the group knows why
		}
		var buffer *[disk.BlockSize]byte
		select {
		case buffer = <-r.buffers:
		case <-ctx.Done():
			r.window.release(false)
			continue
		}
		if buffer == nil {
			buffer = new([disk.BlockSize]byte)
		}
		group.Go(func() error {
			err := r.put(ctx, block, buffer)
			r.buffers <- buffer
			r.window.release(err == nil)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return context.Cause(outer)
}

func (r *region) put(ctx context.Context, block disk.Block, buffer *[disk.BlockSize]byte) error {
	if err := r.disk.ReadBlock(block.Index, buffer); err != nil {
		return fail(Input, "%s: %w", r.disk.Name, err)
	}
	input := &ebs.PutSnapshotBlockInput{
		SnapshotId:        &r.journal.Snapshot,
		BlockIndex:        &block.Index,
		DataLength:        aws.Int32(disk.BlockSize),
		Checksum:          aws.String(base64.StdEncoding.EncodeToString(block.Sum[:])),
		ChecksumAlgorithm: ebstypes.ChecksumAlgorithmChecksumAlgorithmSha256,
	}
	_, err := try(ctx, r.caller, func(ctx context.Context) (*ebs.PutSnapshotBlockOutput, error) {
		if err := r.rate.Wait(ctx); err != nil {
			return nil, err
		}
		attempt := *input
		attempt.BlockData = bytes.NewReader(buffer[:])
		return r.ebs.PutSnapshotBlock(ctx, &attempt)
	}, isUnknownSnapshot)
	if err != nil {
		if ctx.Err() == nil && sha256.Sum256(buffer[:]) != block.Sum {
			return fail(Input, "%s was changed while it was being published; publish it again when it is complete", r.disk.Name)
		}
		return describe(fmt.Sprintf("write block %d of %s", block.Index, r.journal.Snapshot), err)
	}
	r.Monitor.Bytes.Add(disk.BlockSize)
	r.Monitor.Written.Add(1)
	return r.journal.note(record{Block: &block.Index})
}

// isUnknownSnapshot tells what EBS says of a snapshot that it has just made.
func isUnknownSnapshot(err error) bool {
	var missing *ebstypes.ResourceNotFoundException
	var invalid *ebstypes.ValidationException
	return errors.As(err, &missing) || errors.As(err, &invalid) && invalid.Reason == ebstypes.ValidationExceptionReasonInvalidSnapshotId
}

// complete seals the snapshot with the digest of all blocks' digests and waits
// until it can be used.
func (r *region) complete(ctx context.Context, blocks []disk.Block) error {
	h := sha256.New()
	for _, block := range blocks {
		h.Write(block.Sum[:])
	}
	again := r.journal.Complete // a run before may have succeeded
	if err := r.journal.note(record{Complete: true}); err != nil {
		return err
	}
	r.step("completing %s", r.journal.Snapshot)
	attempts := 0
	_, err := try(ctx, r.caller, func(ctx context.Context) (*ebs.CompleteSnapshotOutput, error) {
		attempts++
		return r.ebs.CompleteSnapshot(ctx, &ebs.CompleteSnapshotInput{
			SnapshotId:                &r.journal.Snapshot,
			ChangedBlocksCount:        aws.Int32(int32(len(blocks))),
			Checksum:                  aws.String(base64.StdEncoding.EncodeToString(h.Sum(nil))),
			ChecksumAlgorithm:         ebstypes.ChecksumAlgorithmChecksumAlgorithmSha256,
			ChecksumAggregationMethod: ebstypes.ChecksumAggregationMethodChecksumAggregationLinear,
		})
	})
	if err == nil {
		return r.completed(ctx, r.journal.Snapshot, 2*time.Hour)
	}
	// A refusal may mean that an earlier request did it, and its answer was lost.
	if (again || attempts > 1) && isAnswer(err) && ClassOf(err) == Other {
		if r.completed(ctx, r.journal.Snapshot, patience) == nil {
			return nil
		}
	}
	return describe("complete "+r.journal.Snapshot, err)
}

// completed waits for a snapshot.
func (r *region) completed(ctx context.Context, id string, limit time.Duration) error {
	return poll(ctx, id, limit, func() (bool, error) {
		found, err := r.describeSnapshot(ctx, id)
		if errorCode(err) == "InvalidSnapshot.NotFound" || err == nil && found.State == types.SnapshotStatePending {
			return false, nil
		}
		if err != nil {
			return false, describe("wait for "+id, err)
		}
		if found.State == types.SnapshotStateError {
			return false, fail(Other, "%s has failed: %s", id, aws.ToString(found.StateMessage))
		}
		return found.State == types.SnapshotStateCompleted, nil
	})
}
