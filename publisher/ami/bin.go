package ami

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
)

// A recycleBin is what a rule of Recycle Bin retains in a region: images and
// snapshots, with the times at which they leave the bin.
type recycleBin struct {
	until map[string]time.Time // by ID
	names map[string]string    // IDs of images, by name
}

// listImagesInBin lists the images in the Recycle Bin. There are none if the
// credentials do not permit to list them.
func listImagesInBin(ctx context.Context, i images) (recycleBin, error) {
	bin := recycleBin{map[string]time.Time{}, map[string]string{}}
	for page, err := range pages(ctx, i.caller, ec2.NewListImagesInRecycleBinPaginator(i.ec2, &ec2.ListImagesInRecycleBinInput{})) {
		if ClassOf(err) == ClassPermission {
			break
		}
		if err != nil {
			return bin, describe("list the images in the Recycle Bin", err)
		}
		for _, image := range page.Images {
			bin.until[*image.ImageId] = aws.ToTime(image.RecycleBinExitTime)
			bin.names[aws.ToString(image.Name)] = *image.ImageId
		}
	}
	return bin, nil
}

// listBin is like listImagesInBin, with the snapshots.
func listBin(ctx context.Context, i images) (recycleBin, error) {
	bin, err := listImagesInBin(ctx, i)
	if err != nil {
		return bin, err
	}
	for page, err := range pages(ctx, i.caller, ec2.NewListSnapshotsInRecycleBinPaginator(i.ec2, &ec2.ListSnapshotsInRecycleBinInput{})) {
		if ClassOf(err) == ClassPermission {
			break
		}
		if err != nil {
			return bin, describe("list the snapshots in the Recycle Bin", err)
		}
		for _, snapshot := range page.Snapshots {
			bin.until[*snapshot.SnapshotId] = aws.ToTime(snapshot.RecycleBinExitTime)
		}
	}
	return bin, nil
}

// bin notes that an image of the same name is in the Recycle Bin: it could not be
// restored once the name is taken.
func (i inspector) bin(ctx context.Context) error {
	bin, err := listImagesInBin(ctx, i.aws.images)
	if err != nil {
		return err
	}
	name := i.publisher.options.Name
	if id := bin.names[name]; id != "" {
		note := fmt.Sprintf("%s, which has the name %s too, is in the Recycle Bin until %s and cannot be restored while this image exists", id, name, bin.until[id].UTC().Format(time.RFC3339))
		i.image.Notes = append(i.image.Notes, note)
		i.step("%s", note)
	}
	return nil
}

// markBin adds to the removed leftovers until when they are in the Recycle Bin.
func (c *collector) markBin(ctx context.Context) {
	if len(c.removed) == 0 || c.dryRun {
		return
	}
	bin, err := listBin(ctx, c.aws.images)
	if err != nil {
		c.errs = append(c.errs, err)
		return
	}
	for n := range c.removed {
		if until, found := bin.until[c.removed[n].ID]; found {
			c.removed[n].Bin = &until
		}
	}
}
