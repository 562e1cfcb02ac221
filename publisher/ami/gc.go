package ami

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// A Leftover is a resource that an interrupted publish left behind.
type Leftover struct {
	Region  string     `json:"region"`
	ID      string     `json:"id"` // of an image or snapshot, or the URL of an object
	Why     string     `json:"why"`
	Created time.Time  `json:"created"`
	Bin     *time.Time `json:"recycleBinUntil,omitempty"` // a rule of Recycle Bin retains it
	Kept    bool       `json:"kept,omitempty"`            // an old image that is still used; Why says by what
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

	// Retention says which old images to remove. Default: none.
	Retention *Retention

	// DryRun lists the resources and removes nothing.
	DryRun bool

	// Timeout is the limit of one attempt of a request. Default: 20 s.
	Timeout time.Duration
}

// GC removes what interrupted publishes left behind: instances that test an
// image, with [TagLaunch], failed images and snapshots with [TagToken] that no image uses. Pending snapshots are kept,
// because a run may still write to them; AWS gives up those of the EBS direct
// APIs after an hour without a block. Archived and locked snapshots and those of
// disabled images are kept too, because someone has decided so.
//
// If something cannot be removed, GC continues with the rest and in the other
// regions. It returns what it removed with the errors of all failures.
func GC(ctx context.Context, cfg aws.Config, o GCOptions) ([]Leftover, error) {
	regions, err := resolveRegions(cfg, o.Regions)
	if err != nil {
		return nil, err
	}
	if o.Retention != nil {
		if err := o.Retention.check(); err != nil {
			return nil, err
		}
	}
	setDefault(&o.Timeout, defaultTimeout)
	client := newHTTPClient(cfg, 1)
	before := time.Now().Add(-o.OlderThan)
	var all []Leftover
	var errs []error
	denied := map[string]bool{} // what the credentials may not do, which no region changes
	for i, region := range regions {
		c := &collector{
			region: region,
			aws:    connect(cfg, region, client, limits{attempt: o.Timeout, workers: 1, rate: 1, retries: new(atomic.Int64)}),
			before: before,
			dryRun: o.DryRun,
		}
		c.instances(ctx)
		c.imagesAndSnapshots(ctx)
		if o.Retention != nil {
			c.oldImages(ctx, o.Retention)
		}
		c.markBin(ctx)
		if o.Bucket != "" && i == 0 {
			c.objectsAndUploads(ctx, o.Bucket)
		}
		all = append(all, c.removed...)
		for _, err := range c.errs {
			if ClassOf(err) == ClassPermission {
				if denied[err.Error()] {
					continue
				}
				denied[err.Error()] = true
			}
			if len(regions) > 1 {
				err = fmt.Errorf("%s: %w", region, err)
			}
			errs = append(errs, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return all, errors.Join(errs...)
}

// A collector removes leftovers in one region.
type collector struct {
	region  string
	aws     services
	before  time.Time // newer resources are kept
	dryRun  bool
	removed []Leftover
	errs    []error
}

// errKept means that a snapshot is not a leftover: it is locked, or used by an
// image that was registered since the images were listed or that is in the
// Recycle Bin.
var errKept = errors.New("kept")

// remove removes a leftover if it is old enough.
func (c *collector) remove(id, why string, created *time.Time, remove func() error) {
	if !aws.ToTime(created).Before(c.before) {
		return
	}
	if !c.dryRun {
		if err := remove(); err == errKept {
			return
		} else if err != nil {
			c.fail("delete "+id, err)
			return
		}
	}
	c.removed = append(c.removed, Leftover{Region: c.region, ID: id, Why: why, Created: aws.ToTime(created)})
}

func (c *collector) fail(action string, err error) {
	c.errs = append(c.errs, describe(action, err))
}

// instances terminates those that test an image. Credentials that may not list
// instances cannot have started any.
func (c *collector) instances(ctx context.Context) {
	for page, err := range c.aws.instances.filter(ctx,
		types.Filter{Name: aws.String("tag-key"), Values: []string{TagLaunch}},
		types.Filter{Name: aws.String("instance-state-name"), Values: []string{"pending", "running", "stopping", "stopped"}},
	) {
		if ClassOf(err) == ClassPermission {
			return
		}
		if err != nil {
			c.fail("list instances", err)
			return
		}
		for _, reservation := range page.Reservations {
			for _, i := range reservation.Instances {
				id := *i.InstanceId
				c.remove(id, "instance that tests "+aws.ToString(i.ImageId), i.LaunchTime, func() error {
					if err := c.aws.instances.terminate(ctx, id); !isInstanceMissing(err) {
						return err
					}
					return nil
				})
			}
		}
	}
}

func (c *collector) imagesAndSnapshots(ctx context.Context) {
	used, err := c.images(ctx)
	if err != nil { // without all images, no snapshot is known to be unused
		c.fail("list images", err)
		return
	}
	for page, err := range c.aws.snapshots.filter(ctx, types.Filter{Name: aws.String("tag-key"), Values: []string{TagToken}}) {
		if err != nil {
			c.fail("list snapshots", err)
			return
		}
		for _, s := range page.Snapshots {
			id := *s.SnapshotId
			if used[id] || s.State == types.SnapshotStatePending || s.StorageTier == types.StorageTierArchive || tagValue(s.Tags, TagToken) == "" {
				continue
			}
			c.remove(id, "snapshot is "+string(s.State)+", no image uses it", s.StartTime, func() error {
				err := c.aws.snapshots.delete(ctx, id)
				if isSnapshotInUse(err) || isSnapshotLocked(err) {
					return errKept
				}
				if isSnapshotMissing(err) {
					return nil
				}
				return err
			})
		}
	}
}

// images removes failed images. It returns the snapshots that the others use.
func (c *collector) images(ctx context.Context) (used map[string]bool, err error) {
	used = map[string]bool{}
	var failed []types.Image
	for page, err := range c.aws.images.all(ctx) {
		if err != nil {
			return nil, err
		}
		for _, image := range page.Images {
			bad := image.State == types.ImageStateFailed || image.State == types.ImageStateError || image.State == types.ImageStateInvalid
			if bad && tagValue(image.Tags, TagToken) != "" {
				failed = append(failed, image)
				continue
			}
			for _, m := range image.BlockDeviceMappings {
				if m.Ebs != nil {
					used[aws.ToString(m.Ebs.SnapshotId)] = true
				}
			}
		}
	}
	for _, image := range failed {
		created, err := time.Parse(time.RFC3339, aws.ToString(image.CreationDate))
		if err != nil {
			continue
		}
		c.remove(*image.ImageId, "image is "+string(image.State), &created, func() error {
			return c.aws.images.deregister(ctx, *image.ImageId, false)
		})
	}
	return used, nil
}

func (c *collector) objectsAndUploads(ctx context.Context, bucket string) {
	url := "s3://" + bucket + "/"
	for object, err := range c.aws.objects.list(ctx, bucket, objectPrefix) {
		if err != nil {
			c.fail("list s3://"+bucket, err)
			break
		}
		c.remove(url+*object.Key, "object", object.LastModified, func() error {
			return c.aws.objects.deleteObject(ctx, bucket, *object.Key)
		})
	}
	for upload, err := range c.aws.objects.uploads(ctx, bucket, objectPrefix) {
		if err != nil {
			c.fail("list the uploads to s3://"+bucket, err)
			break
		}
		c.remove(url+*upload.Key, "incomplete upload", upload.Initiated, func() error {
			return c.aws.objects.abort(ctx, bucket, upload)
		})
	}
}
