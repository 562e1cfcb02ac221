package ami

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// A Retention says which old images to remove. Only available images that this
// package made are considered.
type Retention struct {
	// KeepLast is the number of images to keep, the newest ones.
	KeepLast int

	// NamePrefix and Tags select the images. One of them is required.
	NamePrefix string
	Tags       map[string]string
}

func (r *Retention) check() error {
	switch {
	case r.KeepLast < 1:
		return fail(ClassUsage, "invalid number of images to keep: %d", r.KeepLast)
	case r.NamePrefix == "" && len(r.Tags) == 0:
		return fail(ClassUsage, "which images to keep the last %d of? use --name-prefix or --tag", r.KeepLast)
	}
	return nil
}

func (r *Retention) matches(image *types.Image) bool {
	if image.State != types.ImageStateAvailable || tagValue(image.Tags, TagToken) == "" || !strings.HasPrefix(aws.ToString(image.Name), r.NamePrefix) {
		return false
	}
	for key, value := range r.Tags {
		if !slices.ContainsFunc(image.Tags, func(t types.Tag) bool { return aws.ToString(t.Key) == key && aws.ToString(t.Value) == value }) {
			return false
		}
	}
	return true
}

// oldImages removes the images of a retention but the last ones, unless they are
// used or protected.
func (c *collector) oldImages(ctx context.Context, r *Retention) {
	var found []types.Image
	for page, err := range c.aws.images.all(ctx) {
		if err != nil {
			c.fail("list images", err)
			return
		}
		for _, image := range page.Images {
			if r.matches(&image) {
				found = append(found, image)
			}
		}
	}
	// The format of the dates sorts by time.
	slices.SortFunc(found, func(a, b types.Image) int {
		return cmp.Or(cmp.Compare(aws.ToString(b.CreationDate), aws.ToString(a.CreationDate)), cmp.Compare(*b.ImageId, *a.ImageId))
	})
	if len(found) <= r.KeepLast {
		return
	}
	used, err := c.users(ctx)
	if err != nil { // without all users, no image is known to be unused
		c.errs = append(c.errs, err)
		return
	}
	for _, image := range found[r.KeepLast:] {
		created, err := time.Parse(time.RFC3339, aws.ToString(image.CreationDate))
		if err != nil {
			continue
		}
		id, what := *image.ImageId, fmt.Sprintf("image %s is not among the last %d", aws.ToString(image.Name), r.KeepLast)
		if state := aws.ToString(image.DeregistrationProtection); state != "" && state != "disabled" {
			used[id] = cmp.Or(used[id], "it is protected from deregistration")
		}
		if used[id] != "" {
			if created.Before(c.before) {
				c.removed = append(c.removed, Leftover{Region: c.region, ID: id, Why: used[id], Created: created, Kept: true})
			}
			continue
		}
		c.remove(id, what, &created, func() error { return c.removeImage(ctx, &image) })
	}
}

// removeImage deregisters an image and deletes its snapshots that this package
// made and that no other image uses.
func (c *collector) removeImage(ctx context.Context, image *types.Image) error {
	if err := c.aws.images.deregister(ctx, *image.ImageId, false); err != nil {
		return err
	}
	for _, m := range image.BlockDeviceMappings {
		if m.Ebs == nil || aws.ToString(m.Ebs.SnapshotId) == "" {
			continue
		}
		id := *m.Ebs.SnapshotId
		snapshot, err := c.aws.snapshots.byID(ctx, id)
		if err == nil && tagValue(snapshot.Tags, TagToken) != "" {
			err = c.aws.snapshots.delete(ctx, id)
		}
		if err != nil && !isSnapshotMissing(err) && !isSnapshotInUse(err) && !isSnapshotLocked(err) {
			return err
		}
	}
	return nil
}

// users returns what uses images, by their IDs: instances, all versions of all
// launch templates, Spot requests, Auto Scaling, and SSM parameters. EC2 Fleets
// are not read: those that replace instances take images only from launch
// templates ("FleetLaunchTemplateOverrides" in the API reference of EC2).
func (c *collector) users(ctx context.Context) (map[string]string, error) {
	used := map[string]string{}
	for page, err := range c.aws.instances.filter(ctx,
		types.Filter{Name: aws.String("instance-state-name"), Values: []string{"pending", "running", "stopping", "stopped"}}) {
		if err != nil {
			return nil, describe("list instances", err)
		}
		for _, reservation := range page.Reservations {
			for _, i := range reservation.Instances {
				used[aws.ToString(i.ImageId)] = "instance " + *i.InstanceId + " uses it"
			}
		}
	}
	requests := c.aws.images.caller
	for page, err := range pages(ctx, requests, ec2.NewDescribeLaunchTemplatesPaginator(c.aws.images.ec2, &ec2.DescribeLaunchTemplatesInput{})) {
		if err != nil {
			return nil, describe("list launch templates", err)
		}
		for _, template := range page.LaunchTemplates {
			versions := ec2.NewDescribeLaunchTemplateVersionsPaginator(c.aws.images.ec2, &ec2.DescribeLaunchTemplateVersionsInput{
				LaunchTemplateId: template.LaunchTemplateId, ResolveAlias: aws.Bool(true),
			})
			for page, err := range pages(ctx, requests, versions) {
				if err != nil {
					return nil, describe("list the versions of "+aws.ToString(template.LaunchTemplateName), err)
				}
				for _, v := range page.LaunchTemplateVersions {
					if v.LaunchTemplateData != nil && v.LaunchTemplateData.ImageId != nil {
						used[*v.LaunchTemplateData.ImageId] = fmt.Sprintf("version %d of the launch template %s uses it", aws.ToInt64(v.VersionNumber), aws.ToString(template.LaunchTemplateName))
					}
				}
			}
		}
	}
	if err := c.aws.instances.spotImages(ctx, used); err != nil {
		return nil, err
	}
	if err := c.aws.scaling.images(ctx, used); err != nil {
		return nil, err
	}
	return used, c.aws.parameters.images(ctx, used)
}
