package ami

import (
	"context"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Leftover is something that a publish has left behind.
type Leftover struct {
	Region  string    `json:"region"`
	ID      string    `json:"id"`
	Why     string    `json:"why"`
	Created time.Time `json:"created"`
}

// GCOptions say what to look for.
type GCOptions struct {
	Regions   []string
	Bucket    string        // also look for objects in this bucket of the first region
	OlderThan time.Duration // leave what may still be in use
	DryRun    bool
	Timeout   time.Duration // of one attempt; default 20 s
}

// GC removes what publishes have left behind, by our tags: images that failed,
// and snapshots that no image uses. Where removing fails, what was found and
// removed until then is returned with the error.
func GC(ctx context.Context, cfg aws.Config, o GCOptions) ([]Leftover, error) {
	if len(o.Regions) == 0 && cfg.Region != "" {
		o.Regions = []string{cfg.Region}
	}
	if len(o.Regions) == 0 {
		return nil, fail(Region, "no region: use --region, or set AWS_REGION")
	}
	if o.Timeout == 0 {
		o.Timeout = 20 * time.Second
	}
	client := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) { t.ResponseHeaderTimeout = o.Timeout })
	before := time.Now().Add(-o.OlderThan)
	var all []Leftover
	for i, name := range o.Regions {
		r := newRegion(cfg, name, client, o.Timeout, new(Monitor))
		found, err := r.leftovers(ctx, before, o.DryRun)
		all = append(all, found...)
		if err != nil {
			return all, err
		}
		if o.Bucket != "" && i == 0 {
			found, err := r.objects(ctx, o.Bucket, before, o.DryRun)
			all = append(all, found...)
			if err != nil {
				return all, err
			}
		}
	}
	return all, nil
}

func (r *region) leftovers(ctx context.Context, before time.Time, dry bool) ([]Leftover, error) {
	used := map[string]bool{}
	var failed []Leftover
	images := ec2.NewDescribeImagesPaginator(r.ec2, &ec2.DescribeImagesInput{Owners: []string{"self"}})
	for images.HasMorePages() {
		page, err := try(ctx, r.caller, func(ctx context.Context) (*ec2.DescribeImagesOutput, error) { return images.NextPage(ctx) })
		if err != nil {
			return nil, describe("list images", err)
		}
		for _, image := range page.Images {
			created, err := time.Parse(time.RFC3339, aws.ToString(image.CreationDate))
			bad := image.State == types.ImageStateFailed || image.State == types.ImageStateError || image.State == types.ImageStateInvalid
			if bad && err == nil && created.Before(before) && tag(image.Tags, TagToken) != "" {
				failed = append(failed, Leftover{r.name, *image.ImageId, "image is " + string(image.State), created})
				continue
			}
			for _, m := range image.BlockDeviceMappings {
				if m.Ebs != nil {
					used[aws.ToString(m.Ebs.SnapshotId)] = true
				}
			}
		}
	}
	var done []Leftover
	for _, image := range failed {
		if !dry {
			if err := r.deregister(ctx, image.ID, false); err != nil {
				return done, err
			}
		}
		done = append(done, image)
	}

	snapshots := ec2.NewDescribeSnapshotsPaginator(r.ec2, &ec2.DescribeSnapshotsInput{
		OwnerIds: []string{"self"},
		Filters:  []types.Filter{{Name: aws.String("tag-key"), Values: []string{TagToken}}},
	})
	for snapshots.HasMorePages() {
		page, err := try(ctx, r.caller, func(ctx context.Context) (*ec2.DescribeSnapshotsOutput, error) { return snapshots.NextPage(ctx) })
		if err != nil {
			return done, describe("list snapshots", err)
		}
		for _, s := range page.Snapshots {
			if used[*s.SnapshotId] || !aws.ToTime(s.StartTime).Before(before) || tag(s.Tags, TagToken) == "" {
				continue
			}
			if !dry {
				_, err := try(ctx, r.caller, func(ctx context.Context) (*ec2.DeleteSnapshotOutput, error) {
					return r.ec2.DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: s.SnapshotId})
				})
				if hasCode("InvalidSnapshot.InUse")(err) { // registered since
					continue
				}
				if err != nil && !hasCode("InvalidSnapshot.NotFound")(err) {
					return done, describe("delete "+*s.SnapshotId, err)
				}
			}
			done = append(done, Leftover{r.name, *s.SnapshotId, "snapshot is " + string(s.State) + ", no image uses it", aws.ToTime(s.StartTime)})
		}
	}
	return done, nil
}

func (r *region) objects(ctx context.Context, bucket string, before time.Time, dry bool) ([]Leftover, error) {
	var done []Leftover
	objects := s3.NewListObjectsV2Paginator(r.s3, &s3.ListObjectsV2Input{Bucket: &bucket, Prefix: aws.String(prefix)})
	for objects.HasMorePages() {
		page, err := objects.NextPage(ctx)
		if err != nil {
			return done, describe("list s3://"+bucket, err)
		}
		for _, object := range page.Contents {
			if !aws.ToTime(object.LastModified).Before(before) {
				continue
			}
			if !dry {
				if _, err := r.s3.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &bucket, Key: object.Key}); err != nil {
					return done, describe("delete s3://"+bucket+"/"+*object.Key, err)
				}
			}
			done = append(done, Leftover{r.name, "s3://" + bucket + "/" + *object.Key, "object", *object.LastModified})
		}
	}
	uploads := s3.NewListMultipartUploadsPaginator(r.s3, &s3.ListMultipartUploadsInput{Bucket: &bucket, Prefix: aws.String(prefix)})
	for uploads.HasMorePages() {
		page, err := uploads.NextPage(ctx)
		if err != nil {
			return done, describe("list uploads to s3://"+bucket, err)
		}
		for _, upload := range page.Uploads {
			if !aws.ToTime(upload.Initiated).Before(before) {
				continue
			}
			if !dry {
				_, err := r.s3.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &bucket, Key: upload.Key, UploadId: upload.UploadId})
				if err != nil && errorCode(err) != "NoSuchUpload" {
					return done, describe("abort the upload to s3://"+bucket+"/"+*upload.Key, err)
				}
			}
			done = append(done, Leftover{r.name, "s3://" + bucket + "/" + *upload.Key, "upload that was never finished", *upload.Initiated})
		}
	}
	return done, nil
}
