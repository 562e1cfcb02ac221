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

// listBin lists the Recycle Bin. Nothing depends on the list, so that it ends
// with the first error, for example a missing permission.
func listBin(ctx context.Context, i images) recycleBin {
	bin := recycleBin{map[string]time.Time{}, map[string]string{}}
	ctx, cancel := context.WithTimeout(ctx, i.caller.attempt)
	defer cancel()
	for p := ec2.NewListImagesInRecycleBinPaginator(i.ec2, &ec2.ListImagesInRecycleBinInput{}); p.HasMorePages(); {
		page, err := p.NextPage(ctx)
		if err != nil {
			break
		}
		for _, image := range page.Images {
			bin.until[*image.ImageId] = aws.ToTime(image.RecycleBinExitTime)
			bin.names[aws.ToString(image.Name)] = *image.ImageId
		}
	}
	return bin
}

// addSnapshots adds the snapshots in the bin.
func (bin recycleBin) addSnapshots(ctx context.Context, s snapshots) {
	ctx, cancel := context.WithTimeout(ctx, s.caller.attempt)
	defer cancel()
	for p := ec2.NewListSnapshotsInRecycleBinPaginator(s.ec2, &ec2.ListSnapshotsInRecycleBinInput{}); p.HasMorePages(); {
		page, err := p.NextPage(ctx)
		if err != nil {
			break
		}
		for _, snapshot := range page.Snapshots {
			bin.until[*snapshot.SnapshotId] = aws.ToTime(snapshot.RecycleBinExitTime)
		}
	}
}

// bin notes that an image of the same name is in the Recycle Bin: it could not be
// restored once the name is taken.
func (i inspector) bin(ctx context.Context) error {
	bin, name := listBin(ctx, i.aws.images), i.publisher.options.Name
	if id := bin.names[name]; id != "" {
		note := fmt.Sprintf("%s, which has the name %s too, is in the Recycle Bin until %s and cannot be restored while this image exists", id, name, bin.until[id].UTC().Format(time.RFC3339))
		i.image.Notes = append(i.image.Notes, note)
		i.step("%s", note)
	}
	return context.Cause(ctx)
}

// markBin adds to the removed leftovers until when they are in the Recycle Bin.
func (c *collector) markBin(ctx context.Context) {
	if len(c.removed) == 0 || c.dryRun {
		return
	}
	bin := listBin(ctx, c.aws.images)
	bin.addSnapshots(ctx, c.aws.snapshots)
	for n := range c.removed {
		if until, found := bin.until[c.removed[n].ID]; found {
			c.removed[n].Bin = &until
		}
	}
}
