package ami

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// A Leftover is a resource that an interrupted publish left behind.
type Leftover struct {
	Region  string    `json:"region"`
	ID      string    `json:"id"` // of an image or snapshot, or the URL of an object
	Why     string    `json:"why"`
	Created time.Time `json:"created"`
}

// GCOptions say where and what to remove.
type GCOptions struct {
	// Regions are the regions to look in. Default: the region of the AWS
	// configuration.
	Regions []string

	// Bucket is a bucket in the first region to look in for objects and
	// incomplete uploads. Default: none.
	Bucket string

	// OlderThan protects younger resources, which a publish may still need.
	OlderThan time.Duration

	// DryRun lists the resources and removes nothing.
	DryRun bool

	// Timeout is the limit of one attempt of a request. Default: 20 s.
	Timeout time.Duration
}

// GC removes what interrupted publishes left behind: failed images and
// snapshots with [TagToken] that no image uses. If it fails, it returns what it
// removed until then with the error.
func GC(ctx context.Context, cfg aws.Config, o GCOptions) ([]Leftover, error) {
	regions, err := resolveRegions(cfg, o.Regions)
	if err != nil {
		return nil, err
	}
	setDefault(&o.Timeout, defaultTimeout)
	client := newHTTPClient(cfg, 1, o.Timeout)
	before := time.Now().Add(-o.OlderThan)
	var all []Leftover
	for i, region := range regions {
		c := &collector{
			region: region,
			aws:    connect(cfg, region, client, limits{attempt: o.Timeout, workers: 1, rate: 1, retries: new(atomic.Int64)}),
			before: before,
			dryRun: o.DryRun,
		}
		err := c.imagesAndSnapshots(ctx)
		if err == nil && o.Bucket != "" && i == 0 {
			err = c.objectsAndUploads(ctx, o.Bucket)
		}
		all = append(all, c.removed...)
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

// A collector removes leftovers in one region.
type collector struct {
	region  string
	aws     services
	before  time.Time // newer resources are kept
	dryRun  bool
	removed []Leftover
}

func (c *collector) imagesAndSnapshots(ctx context.Context) error {
	used, failed, err := c.scanImages(ctx)
	if err != nil {
		return err
	}
	for _, image := range failed {
		if !c.dryRun {
			if err := c.aws.images.deregister(ctx, image.ID, false); err != nil {
				return err
			}
		}
		c.removed = append(c.removed, image)
	}
	for page, err := range c.aws.snapshots.filter(ctx, types.Filter{Name: aws.String("tag-key"), Values: []string{TagToken}}) {
		if err != nil {
			return describe("list snapshots", err)
		}
		for _, s := range page.Snapshots {
			if used[*s.SnapshotId] || !aws.ToTime(s.StartTime).Before(c.before) || tagValue(s.Tags, TagToken) == "" {
				continue
			}
			if err := c.removeSnapshot(ctx, s); err != nil {
				return err
			}
		}
	}
	return nil
}

// scanImages returns the snapshots that images use, and the images to remove.
func (c *collector) scanImages(ctx context.Context) (used map[string]bool, failed []Leftover, err error) {
	used = map[string]bool{}
	for page, err := range c.aws.images.all(ctx) {
		if err != nil {
			return nil, nil, describe("list images", err)
		}
		for _, image := range page.Images {
			created, err := time.Parse(time.RFC3339, aws.ToString(image.CreationDate))
			bad := image.State == types.ImageStateFailed || image.State == types.ImageStateError || image.State == types.ImageStateInvalid
			if bad && err == nil && created.Before(c.before) && tagValue(image.Tags, TagToken) != "" {
				failed = append(failed, Leftover{c.region, *image.ImageId, "image is " + string(image.State), created})
				continue
			}
			for _, m := range image.BlockDeviceMappings {
				if m.Ebs != nil {
					used[aws.ToString(m.Ebs.SnapshotId)] = true
				}
			}
		}
	}
	return used, failed, nil
}

func (c *collector) removeSnapshot(ctx context.Context, s types.Snapshot) error {
	if !c.dryRun {
		err := c.aws.snapshots.delete(ctx, *s.SnapshotId)
		if isSnapshotInUse(err) { // an image has been registered since the scan
			return nil
		}
		if err != nil && !isSnapshotMissing(err) {
			return describe("delete "+*s.SnapshotId, err)
		}
	}
	c.removed = append(c.removed, Leftover{c.region, *s.SnapshotId, "snapshot is " + string(s.State) + ", no image uses it", aws.ToTime(s.StartTime)})
	return nil
}

func (c *collector) objectsAndUploads(ctx context.Context, bucket string) error {
	for object, err := range c.aws.objects.list(ctx, bucket, objectPrefix) {
		if err != nil {
			return describe("list s3://"+bucket, err)
		}
		err := c.removeFromBucket("s3://"+bucket+"/"+*object.Key, "object", object.LastModified, func() error {
			return c.aws.objects.deleteObject(ctx, bucket, *object.Key)
		})
		if err != nil {
			return err
		}
	}
	for upload, err := range c.aws.objects.uploads(ctx, bucket, objectPrefix) {
		if err != nil {
			return describe("list the uploads to s3://"+bucket, err)
		}
		err := c.removeFromBucket("s3://"+bucket+"/"+*upload.Key, "incomplete upload", upload.Initiated, func() error {
			return c.aws.objects.abort(ctx, bucket, upload)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *collector) removeFromBucket(url, what string, created *time.Time, remove func() error) error {
	if !aws.ToTime(created).Before(c.before) {
		return nil
	}
	if !c.dryRun {
		if err := remove(); err != nil {
			return describe("delete "+url, err)
		}
	}
	c.removed = append(c.removed, Leftover{c.region, url, what, aws.ToTime(created)})
	return nil
}
