package ami

import (
	"cmp"
	"context"
	"iter"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// images are the AMIs of the account.
type images struct {
	ec2    *ec2.Client
	caller caller
}

var isImageMissing = hasCode("InvalidAMIID.NotFound", "InvalidAMIID.Unavailable")

// byName returns the image with a name, or nil.
func (i images) byName(ctx context.Context, name string) (*types.Image, error) {
	found, err := i.filter(ctx, "name", name)
	if err != nil {
		return nil, describe("look for an AMI named "+name, err)
	}
	// EC2 treats the value as a pattern. Valid names contain no wildcard, but
	// other images than the named one are ignored anyway.
	for _, image := range found {
		if aws.ToString(image.Name) == name && image.State != types.ImageStateDeregistered {
			return &image, nil
		}
	}
	return nil, nil
}

// bySnapshot returns the images that use a snapshot.
func (i images) bySnapshot(ctx context.Context, snapshot string) ([]types.Image, error) {
	found, err := i.filter(ctx, "block-device-mapping.snapshot-id", snapshot)
	if err != nil {
		return nil, describe("look for images of "+snapshot, err)
	}
	return found, nil
}

func (i images) filter(ctx context.Context, name, value string) ([]types.Image, error) {
	out, err := call(ctx, i.caller, i.ec2.DescribeImages, &ec2.DescribeImagesInput{
		Owners:          []string{"self"},
		Filters:         []types.Filter{{Name: &name, Values: []string{value}}},
		IncludeDisabled: aws.Bool(true), // they keep their names and snapshots
	})
	if err != nil {
		return nil, err
	}
	return out.Images, nil
}

// byID returns an image, or nil while EC2 does not show it yet.
func (i images) byID(ctx context.Context, id string) (*types.Image, error) {
	out, err := call(ctx, i.caller, i.ec2.DescribeImages, &ec2.DescribeImagesInput{ImageIds: []string{id}, IncludeDisabled: aws.Bool(true)}, isImageMissing)
	if err != nil || len(out.Images) != 1 {
		return nil, err
	}
	return &out.Images[0], nil
}

// existing returns an image, or nil if there is none.
func (i images) existing(ctx context.Context, id string) (*types.Image, error) {
	out, err := call(ctx, i.caller, i.ec2.DescribeImages, &ec2.DescribeImagesInput{ImageIds: []string{id}})
	if isImageMissing(err) || err == nil && len(out.Images) != 1 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &out.Images[0], nil
}

func (i images) all(ctx context.Context) iter.Seq2[*ec2.DescribeImagesOutput, error] {
	return pages(ctx, i.caller, ec2.NewDescribeImagesPaginator(i.ec2, &ec2.DescribeImagesInput{Owners: []string{"self"}, IncludeDisabled: aws.Bool(true)}))
}

// tryRegister asks EC2 whether it would accept a request, without registering
// an image.
func (i images) tryRegister(ctx context.Context, input *ec2.RegisterImageInput) error {
	dry := *input
	dry.DryRun = aws.Bool(true)
	_, err := call(ctx, i.caller, i.ec2.RegisterImage, &dry)
	return err
}

// tryCopy asks EC2 whether it would accept a request, without copying an image.
func (i images) tryCopy(ctx context.Context, input *ec2.CopyImageInput) error {
	dry := *input
	dry.DryRun = aws.Bool(true)
	_, err := call(ctx, i.caller, i.ec2.CopyImage, &dry)
	return err
}

// register returns the ID of a new image. EC2 may not know its snapshot yet.
func (i images) register(ctx context.Context, input *ec2.RegisterImageInput) (string, error) {
	out, err := call(ctx, i.caller, i.ec2.RegisterImage, input, hasCode("InvalidSnapshot.NotFound", "IncorrectState"))
	if err != nil {
		return "", err
	}
	return *out.ImageId, nil
}

// copy copies an image from another region and returns its ID. The client token
// makes it idempotent.
func (i images) copy(ctx context.Context, input *ec2.CopyImageInput) (string, error) {
	out, err := call(ctx, i.caller, i.ec2.CopyImage, input)
	if err != nil {
		return "", err
	}
	return *out.ImageId, nil
}

// share adds and removes those who may launch an image, named as in
// [Options.Share].
func (i images) share(ctx context.Context, id string, add, remove []string) error {
	_, err := call(ctx, i.caller, i.ec2.ModifyImageAttribute, &ec2.ModifyImageAttributeInput{
		ImageId:          &id,
		LaunchPermission: &types.LaunchPermissionModifications{Add: launchPermissions(add), Remove: launchPermissions(remove)},
	})
	return err
}

// sharedWith returns who may launch an image, named as in [Options.Share].
func (i images) sharedWith(ctx context.Context, id string) ([]string, error) {
	out, err := call(ctx, i.caller, i.ec2.DescribeImageAttribute, &ec2.DescribeImageAttributeInput{
		ImageId: &id, Attribute: types.ImageAttributeNameLaunchPermission,
	})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, p := range out.LaunchPermissions {
		names = append(names, cmp.Or(string(p.Group), aws.ToString(p.UserId), aws.ToString(p.OrganizationArn), aws.ToString(p.OrganizationalUnitArn)))
	}
	return names, nil
}

func (i images) deprecate(ctx context.Context, id string, at time.Time) error {
	_, err := call(ctx, i.caller, i.ec2.EnableImageDeprecation, &ec2.EnableImageDeprecationInput{ImageId: &id, DeprecateAt: &at})
	return err
}

// protect protects an image from deregistration, with a cooldown or without.
func (i images) protect(ctx context.Context, id string, cooldown bool) error {
	_, err := call(ctx, i.caller, i.ec2.EnableImageDeregistrationProtection, &ec2.EnableImageDeregistrationProtectionInput{ImageId: &id, WithCooldown: &cooldown})
	return err
}

// unprotect ends the protection. It succeeds if the image is gone.
func (i images) unprotect(ctx context.Context, id string) error {
	_, err := call(ctx, i.caller, i.ec2.DisableImageDeregistrationProtection, &ec2.DisableImageDeregistrationProtectionInput{ImageId: &id})
	if err != nil && !isImageMissing(err) {
		return describe("end the deregistration protection of "+id, err)
	}
	return nil
}

// isPublicBlocked reports whether the account does not permit new public images.
func (i images) isPublicBlocked(ctx context.Context) (bool, error) {
	out, err := call(ctx, i.caller, i.ec2.GetImageBlockPublicAccessState, &ec2.GetImageBlockPublicAccessStateInput{})
	if err != nil {
		return false, describe("read whether public images are blocked", err)
	}
	return aws.ToString(out.ImageBlockPublicAccessState) != string(types.ImageBlockPublicAccessDisabledStateUnblocked), nil
}

// deregister removes an image, and its snapshots too if withSnapshots is set.
// It succeeds if the image is gone.
func (i images) deregister(ctx context.Context, id string, withSnapshots bool) error {
	start := time.Now()
	_, err := call(ctx, i.caller, i.ec2.DeregisterImage,
		&ec2.DeregisterImageInput{ImageId: &id, DeleteAssociatedSnapshots: &withSnapshots},
		func(err error) bool { return isImageMissing(err) && time.Since(start) < settled })
	if err != nil && !isImageMissing(err) {
		return describe("deregister "+id, err)
	}
	return nil
}

// rootSnapshot returns the snapshot of the root device of an image, or "".
func rootSnapshot(image *types.Image) string {
	for _, m := range image.BlockDeviceMappings {
		if m.Ebs != nil && aws.ToString(m.DeviceName) == aws.ToString(image.RootDeviceName) {
			return aws.ToString(m.Ebs.SnapshotId)
		}
	}
	return ""
}

// uefiData returns the UEFI variables of an image in base64.
func (i images) uefiData(ctx context.Context, id string) (string, error) {
	out, err := call(ctx, i.caller, i.ec2.DescribeImageAttribute,
		&ec2.DescribeImageAttributeInput{ImageId: &id, Attribute: types.ImageAttributeNameUefiData})
	if err != nil || out.UefiData == nil {
		return "", err
	}
	return aws.ToString(out.UefiData.Value), nil
}
