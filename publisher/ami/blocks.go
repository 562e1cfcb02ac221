package ami

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	ebstypes "github.com/aws/aws-sdk-go-v2/service/ebs/types"

	"github.com/slipway-build/slipway/publisher/disk"
)

// blocks are what snapshots consist of. The EBS direct APIs write and read
// them.
type blocks struct {
	ebs    *ebs.Client
	caller caller
	window *window
}

// start starts a snapshot. The client token makes it idempotent.
func (b blocks) start(ctx context.Context, input *ebs.StartSnapshotInput) (*ebs.StartSnapshotOutput, error) {
	return call(ctx, b.caller, b.ebs.StartSnapshot, input)
}

// put writes a block. The caller has acquired the window. put returns how long
// the last attempt took.
func (b blocks) put(ctx context.Context, snapshot string, block disk.Block, data []byte) (took time.Duration, err error) {
	c := b.caller
	c.window = b.window
	_, err = try(ctx, c, func(ctx context.Context) (*ebs.PutSnapshotBlockOutput, error) {
		start := time.Now()
		defer func() { took = time.Since(start) }()
		return b.ebs.PutSnapshotBlock(ctx, &ebs.PutSnapshotBlockInput{
			SnapshotId:        &snapshot,
			BlockIndex:        &block.Index,
			BlockData:         bytes.NewReader(data),
			DataLength:        aws.Int32(disk.BlockSize),
			Checksum:          checksum(block.Sum[:]),
			ChecksumAlgorithm: ebstypes.ChecksumAlgorithmChecksumAlgorithmSha256,
		})
	}, isSnapshotUnknown)
	return took, err
}

// isSnapshotUnknown reports whether EBS does not know a snapshot. That can
// happen for a while after EBS has started it.
func isSnapshotUnknown(err error) bool {
	var missing *ebstypes.ResourceNotFoundException
	var invalid *ebstypes.ValidationException
	return errors.As(err, &missing) || errors.As(err, &invalid) && invalid.Reason == ebstypes.ValidationExceptionReasonInvalidSnapshotId
}

// complete ends the upload to a snapshot with the digest of the digests of the
// written blocks. It returns the number of attempts: if it is more than one, a
// refusal may mean that an earlier attempt succeeded.
func (b blocks) complete(ctx context.Context, snapshot string, written []disk.Block) (attempts int, err error) {
	h := sha256.New()
	for _, block := range written {
		h.Write(block.Sum[:])
	}
	_, err = try(ctx, b.caller, func(ctx context.Context) (*ebs.CompleteSnapshotOutput, error) {
		attempts++
		return b.ebs.CompleteSnapshot(ctx, &ebs.CompleteSnapshotInput{
			SnapshotId:                &snapshot,
			ChangedBlocksCount:        aws.Int32(int32(len(written))),
			Checksum:                  checksum(h.Sum(nil)),
			ChecksumAlgorithm:         ebstypes.ChecksumAlgorithmChecksumAlgorithmSha256,
			ChecksumAggregationMethod: ebstypes.ChecksumAggregationMethodChecksumAggregationLinear,
		})
	})
	return attempts, err
}

// list returns the indexes of the blocks in a completed snapshot, with the
// tokens to read them.
func (b blocks) list(ctx context.Context, snapshot string) (map[int32]string, error) {
	tokens := map[int32]string{}
	input := &ebs.ListSnapshotBlocksInput{SnapshotId: &snapshot, MaxResults: aws.Int32(10000)}
	for page, err := range pages(ctx, b.caller, ebs.NewListSnapshotBlocksPaginator(b.ebs, input)) {
		if err != nil {
			return nil, err
		}
		if size := aws.ToInt32(page.BlockSize); size != disk.BlockSize {
			return nil, fail(ClassOther, "%s has blocks of %d bytes, but this program supports only %d", snapshot, size, disk.BlockSize)
		}
		for _, block := range page.Blocks {
			tokens[*block.BlockIndex] = *block.BlockToken
		}
	}
	return tokens, nil
}

var errChecksum = errors.New("the checksum of a block does not match its data")

// sum reads a block and returns its digest. If data is not nil, it is set to the
// content.
func (b blocks) sum(ctx context.Context, snapshot string, index int32, token string, data *bytes.Buffer) (disk.Sum, error) {
	return try(ctx, b.caller, func(ctx context.Context) (disk.Sum, error) {
		out, err := b.ebs.GetSnapshotBlock(ctx, &ebs.GetSnapshotBlockInput{SnapshotId: &snapshot, BlockIndex: &index, BlockToken: &token})
		if err != nil {
			return disk.Sum{}, err
		}
		defer out.BlockData.Close()
		h := sha256.New()
		w := io.Writer(h)
		if data != nil {
			data.Reset()
			w = io.MultiWriter(h, data)
		}
		if n, err := io.Copy(w, out.BlockData); err != nil {
			return disk.Sum{}, err
		} else if n != disk.BlockSize {
			return disk.Sum{}, io.ErrUnexpectedEOF
		}
		sum := disk.Sum(h.Sum(nil))
		if aws.ToString(out.Checksum) != *checksum(sum[:]) {
			return disk.Sum{}, errChecksum
		}
		return sum, nil
	}, func(err error) bool { return errors.Is(err, errChecksum) || errors.Is(err, io.ErrUnexpectedEOF) })
}

// checksum returns a digest in the form of the EBS direct APIs.
func checksum(sum []byte) *string { return aws.String(base64.StdEncoding.EncodeToString(sum)) }
