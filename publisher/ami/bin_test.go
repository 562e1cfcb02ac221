package ami_test

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"github.com/slipway-build/slipway/publisher/ami"
	"github.com/slipway-build/slipway/publisher/awstest"
)

// gc says what a rule of Recycle Bin retains, and a publish that an image of its
// name is in the bin.
func TestRecycleBin(t *testing.T) {
	fake := start(t, awstest.Knobs{RecycleBin: 24 * time.Hour})
	cfg := configure(t, fake)
	client := ec2.NewFromConfig(cfg)
	d := write(t, content(1, 2))
	image := mustPublish(t, fake, d, ami.Options{}).Images[0]
	must(client.DeregisterImage(t.Context(), &ec2.DeregisterImageInput{ImageId: &image.Image}))
	gc := func() []ami.Leftover { return must(ami.GC(t.Context(), cfg, ami.GCOptions{OlderThan: -time.Hour})) }
	if found := gc(); len(found) > 0 { // the image in the bin uses it
		t.Errorf("removed %+v", found)
	}
	again := mustPublish(t, fake, d, ami.Options{}).Images[0]
	if len(again.Notes) != 1 || !strings.HasPrefix(again.Notes[0], image.Image+", which has the name machine-1 too, is in the Recycle Bin until ") {
		t.Errorf("the notes are %q", again.Notes)
	}
	if _, err := client.RestoreImageFromRecycleBin(t.Context(), &ec2.RestoreImageFromRecycleBinInput{ImageId: &image.Image}); err == nil {
		t.Error("the image was restored although its name is taken")
	}
	must(client.DeregisterImage(t.Context(), &ec2.DeregisterImageInput{ImageId: &again.Image}))
	must(client.RestoreImageFromRecycleBin(t.Context(), &ec2.RestoreImageFromRecycleBinInput{ImageId: &image.Image}))
	must(client.DeregisterImage(t.Context(), &ec2.DeregisterImageInput{ImageId: &image.Image}))
	fake.Advance(25 * time.Hour)
	found := gc()
	if len(found) == 0 {
		t.Error("nothing was removed")
	}
	for _, l := range found {
		if l.Bin == nil || l.Bin.Before(time.Now().Add(40*time.Hour)) {
			t.Errorf("%+v is not in the bin", l)
		}
	}
	must(client.RestoreSnapshotFromRecycleBin(t.Context(), &ec2.RestoreSnapshotFromRecycleBinInput{SnapshotId: &found[0].ID}))
	if _, err := fake.Disk(home, found[0].ID); err != nil {
		t.Error(err)
	}
	fake.SetKnobs(awstest.Knobs{Denied: []string{"ec2:ListImagesInRecycleBin", "ec2:ListSnapshotsInRecycleBin"}})
	if found := gc(); len(found) != 1 || found[0].Bin != nil {
		t.Errorf("without the permission to list the bin: %+v", found)
	}
	mustPublish(t, fake, d, ami.Options{})
}
