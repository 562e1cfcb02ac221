package awstest_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"github.com/slipway-build/slipway/publisher/awstest"
)

// A disk becomes an image, through the SDK and as the fake reports it.
func TestPublish(t *testing.T) {
	c := start(t, awstest.Knobs{})
	blocks := map[int32][]byte{0: noise(1, awstest.BlockSize), 3: noise(2, awstest.BlockSize), 2047: noise(3, awstest.BlockSize)}
	id := c.snapshot(blocks, nil)

	disk, block := must(c.fake.Disk(awstest.Region, id)), make([]byte, awstest.BlockSize)
	for index := range int32(2048) {
		want := blocks[index]
		if want == nil {
			want = make([]byte, awstest.BlockSize)
		}
		if _, err := disk.ReadAt(block, int64(index)*awstest.BlockSize); err != nil || !bytes.Equal(block, want) {
			t.Fatalf("block %d is different: %v", index, err)
		}
	}
	if n, err := disk.ReadAt(make([]byte, 2), disk.Size-1); n != 1 || err != io.EOF {
		t.Errorf("read beyond the end: %d bytes, %v", n, err)
	}
	snapshots := must(c.ec2.DescribeSnapshots(c.ctx, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{id}})).Snapshots
	if len(snapshots) != 1 || snapshots[0].State != "completed" || *snapshots[0].VolumeSize != 1 {
		t.Errorf("snapshots are %+v", snapshots)
	}
	if orphans := c.fake.Orphans(); len(orphans) != 1 {
		t.Errorf("without an image, the snapshot is an orphan: %v", orphans)
	}

	ami := *must(c.ec2.RegisterImage(c.ctx, imageInput("machine", id))).ImageId
	images := must(c.ec2.DescribeImages(c.ctx, &ec2.DescribeImagesInput{ImageIds: []string{ami}})).Images
	if len(images) != 1 || images[0].State != "available" || *images[0].Name != "machine" || images[0].BootMode != "uefi-preferred" ||
		*images[0].BlockDeviceMappings[0].Ebs.SnapshotId != id || *images[0].Tags[0].Value != "machine" {
		t.Errorf("images are %+v", images)
	}
	_, err := c.ec2.RegisterImage(c.ctx, imageInput("machine", id))
	if code(err) != "InvalidAMIName.Duplicate" {
		t.Errorf("a second image of that name: %v", err)
	}
	if orphans := c.fake.Orphans(); len(orphans) != 0 {
		t.Errorf("orphans: %v", orphans)
	}
	_, err = c.ec2.DeleteSnapshot(c.ctx, &ec2.DeleteSnapshotInput{SnapshotId: &id})
	if code(err) != "InvalidSnapshot.InUse" {
		t.Errorf("deleting a snapshot in use: %v", err)
	}
	must(c.ec2.DeregisterImage(c.ctx, &ec2.DeregisterImageInput{ImageId: &ami, DeleteAssociatedSnapshots: aws.Bool(true)}))
	if left := c.fake.Snapshots(); len(left) != 0 {
		t.Errorf("snapshots left: %v", left)
	}
	c.clean()
}
