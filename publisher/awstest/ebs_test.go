package awstest_test

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	ebstypes "github.com/aws/aws-sdk-go-v2/service/ebs/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"github.com/slipway-build/slipway/publisher/awstest"
)

func TestStartSnapshotChecks(t *testing.T) {
	c := start(t, awstest.Knobs{})
	parent := c.snapshot(nil, func(in *ebs.StartSnapshotInput) { in.VolumeSize = aws.Int64(2) })
	for name, test := range map[string]struct {
		change func(*ebs.StartSnapshotInput)
		want   string // in the violation; "" means none
	}{
		"good":             {func(*ebs.StartSnapshotInput) {}, ""},
		"largest":          {func(in *ebs.StartSnapshotInput) { in.VolumeSize = aws.Int64(65536) }, ""},
		"no size":          {func(in *ebs.StartSnapshotInput) { in.VolumeSize = aws.Int64(0) }, "VolumeSize is 0"},
		"too large":        {func(in *ebs.StartSnapshotInput) { in.VolumeSize = aws.Int64(65537) }, "VolumeSize is 65537"},
		"short timeout":    {func(in *ebs.StartSnapshotInput) { in.Timeout = aws.Int32(9) }, "Timeout is 9 minutes"},
		"long timeout":     {func(in *ebs.StartSnapshotInput) { in.Timeout = aws.Int32(4321) }, "Timeout is 4321 minutes"},
		"long description": {func(in *ebs.StartSnapshotInput) { in.Description = aws.String(strings.Repeat("x", 256)) }, "Description"},
		"reserved tag":     {func(in *ebs.StartSnapshotInput) { in.Tags = ebsTags("aws:x", "1") }, "reserved"},
		"same tag twice":   {func(in *ebs.StartSnapshotInput) { in.Tags = ebsTags("a", "1", "a", "2") }, "twice"},
		"key alone":        {func(in *ebs.StartSnapshotInput) { in.KmsKeyArn = aws.String("alias/x") }, "requires Encrypted"},
		"small child":      {func(in *ebs.StartSnapshotInput) { in.ParentSnapshotId = &parent }, "less than the 2 GiB of the parent"},
		"encrypted child": {func(in *ebs.StartSnapshotInput) {
			in.VolumeSize, in.ParentSnapshotId, in.Encrypted = aws.Int64(2), &parent, aws.Bool(true)
		}, "excludes Encrypted and KmsKeyArn"},
		"key of elsewhere": {func(in *ebs.StartSnapshotInput) {
			in.Encrypted, in.KmsKeyArn = aws.Bool(true), aws.String("arn:aws:kms:eu-west-1:"+awstest.Account+":key/x")
		}, "is not in us-east-1"},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(c.fake.Violations())
			in := &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1)}
			test.change(in)
			_, err := c.ebs.StartSnapshot(c.ctx, in)
			found := c.fake.Violations()[before:]
			if test.want == "" {
				if err != nil || len(found) > 0 {
					t.Errorf("%v, violations %v", err, found)
				}
				return
			}
			if code(err) != "ValidationException" || len(found) != 1 || !strings.Contains(found[0].String(), test.want) {
				t.Errorf("%v, violations %v, want %q", err, found, test.want)
			}
		})
	}
}

func ebsTags(list ...string) []ebstypes.Tag {
	var out []ebstypes.Tag
	for pair := range slices.Chunk(list, 2) {
		out = append(out, ebstypes.Tag{Key: &pair[0], Value: &pair[1]})
	}
	return out
}

func TestPutSnapshotBlockChecks(t *testing.T) {
	block, other := noise(1, awstest.BlockSize), noise(2, awstest.BlockSize)
	for name, test := range map[string]struct {
		change func(*ebs.PutSnapshotBlockInput)
		want   string
	}{
		"other data":         {func(in *ebs.PutSnapshotBlockInput) { in.BlockData = bytes.NewReader(other) }, "SHA-256"},
		"other checksum":     {func(in *ebs.PutSnapshotBlockInput) { in.Checksum = aws.String("AAAA") }, "SHA-256"},
		"other algorithm":    {func(in *ebs.PutSnapshotBlockInput) { in.ChecksumAlgorithm = "SHA1" }, "x-amz-Checksum-Algorithm"},
		"short data":         {func(in *ebs.PutSnapshotBlockInput) { in.BlockData = bytes.NewReader(block[1:]) }, "524287 bytes"},
		"long data":          {func(in *ebs.PutSnapshotBlockInput) { in.BlockData = bytes.NewReader(append(block, 0)) }, "more than 524288"},
		"short length":       {func(in *ebs.PutSnapshotBlockInput) { in.DataLength = aws.Int32(512) }, "x-amz-Data-Length"},
		"index after end":    {func(in *ebs.PutSnapshotBlockInput) { in.BlockIndex = aws.Int32(2048) }, "block 2048 is outside"},
		"index before start": {func(in *ebs.PutSnapshotBlockInput) { in.BlockIndex = aws.Int32(-1) }, "block -1 is outside"},
		"progress":           {func(in *ebs.PutSnapshotBlockInput) { in.Progress = aws.Int32(101) }, "x-amz-Progress"},
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t, awstest.Knobs{})
			id := *must(c.ebs.StartSnapshot(c.ctx, &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1)})).SnapshotId
			in := putInput(id, 0, block)
			test.change(in)
			if _, err := c.ebs.PutSnapshotBlock(c.ctx, in); err == nil {
				t.Error("no error")
			}
			c.violated(test.want)
			if written := c.fake.Snapshots()[0].Written; written != 0 {
				t.Errorf("%d blocks were written", written)
			}
		})
	}

	t.Run("no snapshot", func(t *testing.T) {
		c := start(t, awstest.Knobs{})
		_, err := c.ebs.PutSnapshotBlock(c.ctx, putInput("snap-0", 0, block))
		if code(err) != "ResourceNotFoundException" {
			t.Error(err)
		}
		c.clean()
	})
	t.Run("after the end", func(t *testing.T) {
		c := start(t, awstest.Knobs{})
		id := c.snapshot(map[int32][]byte{0: block}, nil)
		_, err := c.ebs.PutSnapshotBlock(c.ctx, putInput(id, 0, block))
		if code(err) != "ValidationException" {
			t.Error(err)
		}
		c.violated("is already completed")
	})
}

func TestCompleteSnapshotChecks(t *testing.T) {
	blocks := map[int32][]byte{7: noise(1, awstest.BlockSize), 5: make([]byte, awstest.BlockSize)}
	for name, test := range map[string]struct {
		change func(*ebs.CompleteSnapshotInput)
		want   string
	}{
		"count": {func(in *ebs.CompleteSnapshotInput) { in.ChangedBlocksCount = aws.Int32(3) }, "2 blocks were written"},
		"checksum": {func(in *ebs.CompleteSnapshotInput) {
			in.Checksum = linear(map[int32][]byte{0: blocks[7], 1: blocks[5]})
		}, "linear checksum"},
		"algorithm":  {func(in *ebs.CompleteSnapshotInput) { in.ChecksumAlgorithm = "" }, "x-amz-Checksum-Algorithm"},
		"aggregated": {func(in *ebs.CompleteSnapshotInput) { in.ChecksumAggregationMethod = "" }, "x-amz-Checksum-Aggregation-Method"},
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t, awstest.Knobs{})
			id := *must(c.ebs.StartSnapshot(c.ctx, &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1)})).SnapshotId
			for index, block := range blocks {
				c.put(id, index, block)
			}
			in := completeInput(id, blocks)
			test.change(in)
			if _, err := c.ebs.CompleteSnapshot(c.ctx, in); code(err) != "ValidationException" {
				t.Error(err)
			}
			c.violated(test.want)
			if state := c.fake.Snapshots()[0].State; state != "pending" {
				t.Errorf("the snapshot is %s", state)
			}
		})
	}

	t.Run("again", func(t *testing.T) { // the first answer may be lost
		c := start(t, awstest.Knobs{})
		id := c.snapshot(blocks, nil)
		must(c.ebs.CompleteSnapshot(c.ctx, completeInput(id, blocks)))
		c.clean()
	})
	t.Run("without a checksum", func(t *testing.T) {
		c := start(t, awstest.Knobs{})
		id := *must(c.ebs.StartSnapshot(c.ctx, &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1)})).SnapshotId
		must(c.ebs.CompleteSnapshot(c.ctx, &ebs.CompleteSnapshotInput{SnapshotId: &id, ChangedBlocksCount: aws.Int32(0)}))
		c.clean()
	})
}

func TestClientToken(t *testing.T) {
	c := start(t, awstest.Knobs{})
	in := &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1), ClientToken: aws.String("one")}
	first, again := must(c.ebs.StartSnapshot(c.ctx, in)), must(c.ebs.StartSnapshot(c.ctx, in))
	if *first.SnapshotId != *again.SnapshotId {
		t.Errorf("the same token made %s and %s", *first.SnapshotId, *again.SnapshotId)
	}
	c.clean()
	in.VolumeSize = aws.Int64(2)
	if _, err := c.ebs.StartSnapshot(c.ctx, in); code(err) != "ConflictException" {
		t.Error(err)
	}
	c.violated("used with different parameters")
	if _, err := c.in("eu-west-1").ebs.StartSnapshot(c.ctx, in); err != nil {
		t.Errorf("the token in another region: %v", err)
	}
}

func TestTimeout(t *testing.T) {
	c := start(t, awstest.Knobs{})
	id := *must(c.ebs.StartSnapshot(c.ctx, &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1), Timeout: aws.Int32(10)})).SnapshotId
	block := noise(1, awstest.BlockSize)
	c.fake.Advance(9 * time.Minute)
	c.put(id, 0, block) // restarts the timeout
	c.fake.Advance(9 * time.Minute)
	c.put(id, 1, block)
	c.fake.Advance(11 * time.Minute)
	_, err := c.ebs.PutSnapshotBlock(c.ctx, putInput(id, 2, block))
	if code(err) != "ValidationException" || !strings.Contains(err.Error(), "timeout") {
		t.Error(err)
	}
	if _, err := c.ebs.CompleteSnapshot(c.ctx, completeInput(id, map[int32][]byte{0: block, 1: block})); code(err) != "ValidationException" {
		t.Error(err)
	}
	out := must(c.ec2.DescribeSnapshots(c.ctx, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{id}}))
	if out.Snapshots[0].State != "error" || out.Snapshots[0].StateMessage == nil {
		t.Errorf("the snapshot is %s", out.Snapshots[0].State)
	}
	c.clean()
}

func TestParent(t *testing.T) {
	c := start(t, awstest.Knobs{})
	a, b, zeros := noise(1, awstest.BlockSize), noise(2, awstest.BlockSize), make([]byte, awstest.BlockSize)
	parent := c.snapshot(map[int32][]byte{0: a, 1: a, 2: a}, nil)
	child := c.snapshot(map[int32][]byte{1: b, 2: zeros, 9: b}, func(in *ebs.StartSnapshotInput) { in.ParentSnapshotId = &parent })

	want := make([]byte, 16*awstest.BlockSize)
	copy(want, a)
	copy(want[awstest.BlockSize:], b)
	copy(want[9*awstest.BlockSize:], b)
	if !bytes.Equal(c.disk(child), want) {
		t.Error("the child is not the parent with the changes")
	}
	var changed []int32
	for _, one := range must(c.ebs.ListChangedBlocks(c.ctx, &ebs.ListChangedBlocksInput{FirstSnapshotId: &parent, SecondSnapshotId: &child})).ChangedBlocks {
		changed = append(changed, *one.BlockIndex)
		if (one.FirstBlockToken == nil) != (*one.BlockIndex == 9) || one.SecondBlockToken == nil {
			t.Errorf("block %d: tokens %v, %v", *one.BlockIndex, one.FirstBlockToken, one.SecondBlockToken)
		}
	}
	if !slices.Equal(changed, []int32{1, 2, 9}) {
		t.Errorf("changed blocks are %v", changed)
	}
	c.clean()

	// The child keeps its blocks when the parent is deleted.
	must(c.ec2.DeleteSnapshot(c.ctx, &ec2.DeleteSnapshotInput{SnapshotId: &parent}))
	if !bytes.Equal(c.disk(child), want) {
		t.Error("the child lost blocks with its parent")
	}
	stranger := c.snapshot(nil, nil)
	_, err := c.ebs.ListChangedBlocks(c.ctx, &ebs.ListChangedBlocksInput{FirstSnapshotId: &stranger, SecondSnapshotId: &child})
	if code(err) != "ValidationException" {
		t.Error(err)
	}
	c.violated("not related")
}

func TestEncryptedNoise(t *testing.T) {
	zeros := make([]byte, awstest.BlockSize)
	for name, test := range map[string]struct {
		knobs  awstest.Knobs
		change func(*ebs.StartSnapshotInput)
	}{
		"asked":      {awstest.Knobs{}, func(in *ebs.StartSnapshotInput) { in.Encrypted = aws.Bool(true) }},
		"by default": {awstest.Knobs{EncryptByDefault: true}, nil},
		"own key": {awstest.Knobs{}, func(in *ebs.StartSnapshotInput) {
			in.Encrypted, in.KmsKeyArn = aws.Bool(true), aws.String("arn:aws:kms:us-east-1:"+awstest.Account+":key/mine")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t, test.knobs)
			in := &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1)}
			if test.change != nil {
				test.change(in)
			}
			out := must(c.ebs.StartSnapshot(c.ctx, in))
			if out.SseType != ebstypes.SSETypeSseKms || out.KmsKeyArn == nil || in.KmsKeyArn != nil && *out.KmsKeyArn != *in.KmsKeyArn {
				t.Errorf("encrypted by %s with %v", out.SseType, out.KmsKeyArn)
			}
			c.put(*out.SnapshotId, 1, zeros)
			must(c.ebs.CompleteSnapshot(c.ctx, completeInput(*out.SnapshotId, map[int32][]byte{1: zeros})))
			disk := c.disk(*out.SnapshotId)
			if !bytes.Equal(disk[awstest.BlockSize:2*awstest.BlockSize], zeros) {
				t.Error("written zeros do not read as zeros")
			}
			if bytes.Contains(disk[:awstest.BlockSize], make([]byte, 16)) || bytes.Equal(disk[:awstest.BlockSize], disk[2*awstest.BlockSize:3*awstest.BlockSize]) {
				t.Error("unwritten blocks do not read as noise")
			}
			d := must(c.fake.Disk(awstest.Region, *out.SnapshotId))
			part := make([]byte, 3000)
			if _, err := d.ReadAt(part, 1234567); err != nil || !bytes.Equal(part, disk[1234567:1234567+3000]) {
				t.Errorf("a partial read returns different noise: %v", err)
			}
			child := c.snapshot(nil, func(in *ebs.StartSnapshotInput) { in.ParentSnapshotId = out.SnapshotId })
			if !bytes.Equal(c.disk(child), disk) {
				t.Error("an unchanged child is a different disk")
			}
			c.clean()
		})
	}
}

func TestLists(t *testing.T) {
	for name, knobs := range map[string]awstest.Knobs{"steady": {}, "flapping": {Flap: time.Hour}} {
		t.Run(name, func(t *testing.T) {
			c := start(t, knobs)
			blocks := map[int32][]byte{}
			for index := range int32(150) {
				blocks[index*2] = noise(byte(index), awstest.BlockSize)
			}
			id := c.snapshot(blocks, nil)
			var listed []int32
			pages := ebs.NewListSnapshotBlocksPaginator(c.ebs, &ebs.ListSnapshotBlocksInput{SnapshotId: &id, MaxResults: aws.Int32(100), StartingBlockIndex: aws.Int32(3)},
				func(o *ebs.ListSnapshotBlocksPaginatorOptions) { o.StopOnDuplicateToken = false })
			var count int
			for ; pages.HasMorePages(); count++ {
				for _, one := range must(pages.NextPage(c.ctx)).Blocks {
					listed = append(listed, *one.BlockIndex)
					out, err := c.ebs.GetSnapshotBlock(c.ctx, &ebs.GetSnapshotBlockInput{SnapshotId: &id, BlockIndex: one.BlockIndex, BlockToken: one.BlockToken})
					if err != nil {
						t.Fatal(err)
					}
					data, err := io.ReadAll(out.BlockData)
					if err != nil || !bytes.Equal(data, blocks[*one.BlockIndex]) || *out.DataLength != awstest.BlockSize {
						t.Fatalf("block %d is different: %v", *one.BlockIndex, err)
					}
				}
			}
			if len(listed) != 148 || listed[0] != 4 || listed[147] != 298 || !slices.IsSorted(listed) {
				t.Errorf("listed %v", listed)
			}
			if steady := count == 2; steady != (knobs.Flap == 0) {
				t.Errorf("there were %d pages", count)
			}
			c.clean()
		})
	}

	c := start(t, awstest.Knobs{})
	id := c.snapshot(map[int32][]byte{0: noise(1, awstest.BlockSize)}, nil)
	for want, try := range map[string]func() error{
		"block token": func() error {
			_, err := c.ebs.GetSnapshotBlock(c.ctx, &ebs.GetSnapshotBlockInput{SnapshotId: &id, BlockIndex: aws.Int32(0), BlockToken: aws.String("x")})
			return err
		},
		"page token": func() error {
			_, err := c.ebs.ListSnapshotBlocks(c.ctx, &ebs.ListSnapshotBlocksInput{SnapshotId: &id, NextToken: aws.String("x")})
			return err
		},
		"maxResults": func() error {
			_, err := c.ebs.ListSnapshotBlocks(c.ctx, &ebs.ListSnapshotBlocksInput{SnapshotId: &id, MaxResults: aws.Int32(99)})
			return err
		},
		"not completed": func() error {
			pending := must(c.ebs.StartSnapshot(c.ctx, &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1)})).SnapshotId
			_, err := c.ebs.ListSnapshotBlocks(c.ctx, &ebs.ListSnapshotBlocksInput{SnapshotId: pending})
			return err
		},
	} {
		before := len(c.fake.Violations())
		if err := try(); code(err) != "ValidationException" {
			t.Errorf("%s: %v", want, err)
		}
		if v := c.fake.Violations()[before:]; len(v) != 1 || !strings.Contains(v[0].String(), want) {
			t.Errorf("%s: violations are %v", want, v)
		}
	}
}

func TestRewritten(t *testing.T) {
	c := start(t, awstest.Knobs{})
	id := *must(c.ebs.StartSnapshot(c.ctx, &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1)})).SnapshotId
	block := noise(1, awstest.BlockSize)
	c.put(id, 0, block)
	c.fake.SetKnobs(awstest.Knobs{Faults: func(awstest.Request) awstest.Fault { return awstest.LostReset }})
	if _, err := c.ebs.PutSnapshotBlock(c.ctx, putInput(id, 1, block)); err == nil {
		t.Error("the answer was not lost")
	}
	c.fake.SetKnobs(awstest.Knobs{})
	c.put(id, 1, block) // was not acknowledged
	if n := c.fake.Snapshots()[0].Rewritten; n != 0 {
		t.Errorf("%d blocks were written again", n)
	}
	c.put(id, 0, block)
	if n := c.fake.Snapshots()[0].Rewritten; n != 1 {
		t.Errorf("%d blocks were written again, not 1", n)
	}
	must(c.ebs.CompleteSnapshot(c.ctx, completeInput(id, map[int32][]byte{0: block, 1: block})))
	c.clean()
}

func TestLimits(t *testing.T) {
	c := start(t, awstest.Knobs{PutRate: 3, PendingSnapshots: 1})
	id := *must(c.ebs.StartSnapshot(c.ctx, &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1)})).SnapshotId
	if _, err := c.ebs.StartSnapshot(c.ctx, &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1)}); code(err) != "ServiceQuotaExceededException" {
		t.Errorf("a second pending snapshot: %v", err)
	}
	block := noise(1, awstest.BlockSize)
	var throttled error
	for index := int32(0); index < 20 && throttled == nil; index++ {
		_, throttled = c.ebs.PutSnapshotBlock(c.ctx, putInput(id, index, block))
	}
	if code(throttled) != "RequestThrottledException" {
		t.Errorf("burst of 20 blocks: %v", throttled)
	}
	c.clean()
}

func TestGraceAndSettle(t *testing.T) {
	c := start(t, awstest.Knobs{Grace: time.Minute, Settle: time.Hour})
	id := *must(c.ebs.StartSnapshot(c.ctx, &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1)})).SnapshotId
	block := noise(1, awstest.BlockSize)
	if _, err := c.ebs.PutSnapshotBlock(c.ctx, putInput(id, 0, block)); code(err) != "ResourceNotFoundException" {
		t.Error(err)
	}
	if _, err := c.ec2.DescribeSnapshots(c.ctx, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{id}}); code(err) != "InvalidSnapshot.NotFound" {
		t.Error(err)
	}
	c.fake.Advance(time.Minute)
	c.put(id, 0, block)
	out := must(c.ebs.CompleteSnapshot(c.ctx, completeInput(id, map[int32][]byte{0: block})))
	if out.Status != ebstypes.StatusPending {
		t.Errorf("the snapshot is %s", out.Status)
	}
	if _, err := c.fake.Disk(awstest.Region, id); err == nil {
		t.Error("Disk returned a pending snapshot")
	}
	c.clean()
	if _, err := c.ec2.RegisterImage(c.ctx, imageInput("machine", id)); code(err) != "IncorrectState" {
		t.Error(err)
	}
	c.violated("is pending, not completed")
	c.fake.Advance(time.Hour)
	ami := *must(c.ec2.RegisterImage(c.ctx, imageInput("machine", id))).ImageId
	c.fake.Advance(time.Minute)
	describe := &ec2.DescribeImagesInput{ImageIds: []string{ami}}
	if im := must(c.ec2.DescribeImages(c.ctx, describe)).Images[0]; im.State != "pending" {
		t.Errorf("the image is %s", im.State)
	}
	c.fake.Advance(time.Hour)
	if im := must(c.ec2.DescribeImages(c.ctx, describe)).Images[0]; im.State != "available" {
		t.Errorf("the image is %s", im.State)
	}
}
