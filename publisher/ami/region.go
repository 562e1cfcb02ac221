package ami

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"
)

// publish uploads and registers.
func (r *region) publish(ctx context.Context) error {
	if err := r.open(ctx); err != nil {
		return err
	}
	found, err := r.existing(ctx)
	if err != nil {
		return err
	}
	if found {
		if r.out.Existing { // remains of a run that was killed have no use
			if err := r.undo(ctx); err != nil {
				return err
			}
		}
		return r.available(ctx)
	}
	if err := r.mayRegister(ctx); err != nil {
		return err
	}
	snapshot, err := r.snapshot(ctx)
	if err != nil {
		return err
	}
	r.out.Snapshot = snapshot
	if err := r.register(ctx, snapshot); err != nil {
		return err
	}
	return r.available(ctx)
}

func (r *region) open(ctx context.Context) (err error) {
	name := digest([]any{r.token, r.Method, r.Parent, r.Bucket, r.name})
	r.journal, err = openJournal(ctx, r.State, name, func() {
		r.step("waiting for another run that publishes the same")
	})
	return err
}

// existing looks for the AMI by its name. One that this run has registered
// before it was killed is also found so.
func (r *region) existing(ctx context.Context) (bool, error) {
	image, err := r.byName(ctx)
	if err != nil || image == nil {
		return false, err
	}
	if tag(image.Tags, TagToken) != r.token {
		if tag(image.Tags, TagContent) == r.content {
			return false, fail(NameTaken, "%s: %s has this name and the same disk, but other settings; choose another --name, or deregister it", r.Name, *image.ImageId)
		}
		return false, fail(NameTaken, "%s: %s has this name; choose another --name, or deregister it", r.Name, *image.ImageId)
	}
	r.found(image)
	r.out.Existing = r.journal == nil || tag(image.Tags, tagRun) != r.journal.Run
	if !r.out.Existing {
		return true, r.journal.note(record{Image: *image.ImageId})
	}
	return true, nil
}

func (r *region) found(image *types.Image) {
	r.out.Image = *image.ImageId
	for _, m := range image.BlockDeviceMappings {
		if m.Ebs != nil && aws.ToString(m.DeviceName) == aws.ToString(image.RootDeviceName) {
			r.out.Snapshot = aws.ToString(m.Ebs.SnapshotId)
		}
	}
}

func (r *region) byName(ctx context.Context) (*types.Image, error) {
	out, err := try(ctx, r.caller, func(ctx context.Context) (*ec2.DescribeImagesOutput, error) {
		return r.ec2.DescribeImages(ctx, &ec2.DescribeImagesInput{
			Owners:  []string{"self"},
			Filters: []types.Filter{{Name: aws.String("name"), Values: []string{r.Name}}},
		})
	})
	if err != nil {
		return nil, describe("look for an AMI named "+r.Name, err)
	}
	// A wildcard in the name cannot be, but another image may share its start.
	for _, image := range out.Images {
		if aws.ToString(image.Name) == r.Name && image.State != types.ImageStateDeregistered {
			return &image, nil
		}
	}
	return nil, nil
}

// mayRegister asks EC2 whether the credentials may register images, so that
// nobody uploads for nothing.
func (r *region) mayRegister(ctx context.Context) error {
	input := r.image("snap-00000000000000000", false)
	input.DryRun = aws.Bool(true)
	_, err := try(ctx, r.caller, func(ctx context.Context) (*ec2.RegisterImageOutput, error) {
		return r.ec2.RegisterImage(ctx, input)
	})
	var api smithy.APIError
	if err == nil || errors.As(err, &api) && (ClassOf(err) == Other) {
		return nil // DryRunOperation, or a complaint about the snapshot
	}
	return describe("ask whether images may be registered", err)
}

// image is the request that registers the image. Without names and tags it
// stands for the settings.
func (o *Options) image(snapshot string, named bool) *ec2.RegisterImageInput {
	input := o.Register
	input.Architecture = types.ArchitectureValues(o.Machine)
	setDefault(&input.VirtualizationType, "hvm")
	setDefault(&input.RootDeviceName, "/dev/xvda")
	setDefault(&input.EnaSupport, true)
	if input.ImdsSupport == "" {
		input.ImdsSupport = types.ImdsSupportValuesV20
	}
	root := types.BlockDeviceMapping{DeviceName: input.RootDeviceName, Ebs: new(types.EbsBlockDevice)}
	mappings := []types.BlockDeviceMapping{root}
	for _, m := range input.BlockDeviceMappings {
		if aws.ToString(m.DeviceName) == *input.RootDeviceName && m.Ebs != nil {
			*root.Ebs = *m.Ebs
		} else {
			mappings = append(mappings, m)
		}
	}
	// No Encrypted: that follows the snapshot, and EC2 refuses both.
	setDefault(&root.Ebs.DeleteOnTermination, true)
	setDefault(&root.Ebs.VolumeSize, int32(o.Size))
	if root.Ebs.VolumeType == "" {
		root.Ebs.VolumeType = o.Volume
	}
	if snapshot != "" {
		root.Ebs.SnapshotId = &snapshot
	}
	input.BlockDeviceMappings = mappings
	if !named {
		input.Name, input.Description, input.TagSpecifications = aws.String(o.Name), nil, nil
		return &input
	}
	input.Name = aws.String(o.Name)
	setDefault(&input.Description, o.Name)
	return &input
}

func setDefault[T any](field **T, value T) {
	if *field == nil {
		*field = &value
	}
}

// tags are the user's and ours, sorted.
func (r *region) tags(token string) []types.Tag {
	all := map[string]string{"Name": r.Name}
	maps.Copy(all, r.Tags)
	all[TagContent], all[TagToken], all[TagDisk], all[tagRun] = r.content, token, diskTag(r.disk.Name), r.journal.Run
	var tags []types.Tag
	for _, key := range slices.Sorted(maps.Keys(all)) {
		tags = append(tags, types.Tag{Key: aws.String(key), Value: aws.String(all[key])})
	}
	return tags
}

func tag(tags []types.Tag, key string) string {
	for _, t := range tags {
		if aws.ToString(t.Key) == key {
			return aws.ToString(t.Value)
		}
	}
	return ""
}

// register makes the image. If another run was faster, its image is the result
// and the snapshot of this run is removed.
func (r *region) register(ctx context.Context, snapshot string) error {
	input := r.image(snapshot, true)
	input.TagSpecifications = []types.TagSpecification{{ResourceType: types.ResourceTypeImage, Tags: r.tags(r.token)}}
	if err := r.journal.note(record{Register: true}); err != nil {
		return err
	}
	r.step("registering %s", r.Name)
	out, err := try(ctx, r.caller, func(ctx context.Context) (*ec2.RegisterImageOutput, error) {
		return r.ec2.RegisterImage(ctx, input)
	}, hasCode("InvalidSnapshot.NotFound", "IncorrectState"))
	if err == nil {
		r.out.Image = *out.ImageId
		return r.journal.note(record{Image: *out.ImageId})
	}
	if errorCode(err) != "InvalidAMIName.Duplicate" {
		return describe("register the image "+r.Name, err)
	}
	return r.duplicate(ctx)
}

// duplicate finds whose image has the name: this run's, of which the answer was
// lost, that of another run on the same input, or a strange one.
func (r *region) duplicate(ctx context.Context) error {
	for start := time.Now(); ; {
		found, err := r.existing(ctx)
		if err != nil {
			return err
		}
		if found {
			break
		}
		if time.Since(start) > patience {
			return fail(NameTaken, "EC2 says that there is an image named %s, but does not show it; try again later", r.Name)
		}
		if err := sleep(ctx, time.Second); err != nil {
			return err
		}
	}
	if !r.out.Existing {
		return nil
	}
	r.step("another run has registered %s: using that", r.out.Image)
	return r.undo(ctx)
}

// available waits for the image.
func (r *region) available(ctx context.Context) error {
	r.step("waiting for %s", r.out.Image)
	return poll(ctx, r.out.Image, time.Hour, func() (bool, error) {
		out, err := try(ctx, r.caller, func(ctx context.Context) (*ec2.DescribeImagesOutput, error) {
			return r.ec2.DescribeImages(ctx, &ec2.DescribeImagesInput{ImageIds: []string{r.out.Image}})
		}, hasCode("InvalidAMIID.NotFound", "InvalidAMIID.Unavailable"))
		if err != nil {
			return false, describe("wait for "+r.out.Image, err)
		}
		if len(out.Images) != 1 {
			return false, nil
		}
		image := out.Images[0]
		switch image.State {
		case types.ImageStateAvailable:
			r.found(&image)
			return true, nil
		case types.ImageStateFailed, types.ImageStateError, types.ImageStateInvalid, types.ImageStateDeregistered:
			reason := ""
			if image.StateReason != nil {
				reason = ": " + aws.ToString(image.StateReason.Message)
			}
			return false, fail(Other, "%s is %s%s", r.out.Image, image.State, reason)
		}
		return false, nil
	})
}

// copyFrom copies the image of another region.
func (r *region) copyFrom(ctx context.Context, from *region) error {
	if err := r.open(ctx); err != nil {
		return err
	}
	found, err := r.existing(ctx)
	if err != nil {
		return err
	}
	if !found {
		if r.journal.Copy == nil {
			input := &ec2.CopyImageInput{
				Name:          aws.String(r.Name),
				Description:   aws.String(r.Name),
				SourceImageId: aws.String(from.out.Image),
				SourceRegion:  aws.String(from.name),
				ClientToken:   aws.String(digest([]string{r.journal.Run, "copy"})),
				TagSpecifications: []types.TagSpecification{
					{ResourceType: types.ResourceTypeImage, Tags: r.tags(r.token)},
					{ResourceType: types.ResourceTypeSnapshot, Tags: r.tags(r.source)},
				},
			}
			if r.Encrypt {
				input.Encrypted = aws.Bool(true)
			}
			if err := r.journal.note(record{Copy: input}); err != nil {
				return err
			}
		}
		r.step("copying %s from %s", from.out.Image, from.name)
		image, err := r.sendCopy(ctx)
		if errorCode(err) == "InvalidAMIName.Duplicate" {
			if err := r.duplicate(ctx); err != nil {
				return err
			}
		} else if err != nil {
			return describe("copy "+from.out.Image+" to "+r.name, err)
		} else {
			r.out.Image = image
		}
	}
	return r.available(ctx)
}

func (r *region) sendCopy(ctx context.Context) (string, error) {
	out, err := try(ctx, r.caller, func(ctx context.Context) (*ec2.CopyImageOutput, error) {
		return r.ec2.CopyImage(ctx, r.journal.Copy)
	})
	if err != nil {
		return "", err
	}
	return *out.ImageId, r.journal.note(record{Image: *out.ImageId})
}

// diskTag makes the name of a file a tag.
func diskTag(name string) string {
	name = name[strings.LastIndexAny(name, `/\`)+1:]
	return strings.Map(func(c rune) rune {
		if c < 0x80 && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune(" +-=._:/@", c)) {
			return c
		}
		return '_'
	}, name[:min(len(name), 255)])
}

// undo removes what this run has made, the last first. Things that are gone are
// gone. What may have been made without an answer is found by asking again.
func (r *region) undo(ctx context.Context) error {
	j := r.journal
	if j.Start != nil || j.Object != "" || j.Image != "" {
		r.step("removing what was made")
	}
	if j.Parameter != nil {
		if err := r.undoParameter(ctx); err != nil {
			return fmt.Errorf("restore the parameter %s: %w", r.SSMParameter, err)
		}
	}
	if j.Copy != nil && j.Image == "" {
		if image, err := r.sendCopy(ctx); err == nil {
			j.Image = image
		} else if ClassOf(err) == Other && !isAnswer(err) {
			return fmt.Errorf("find the copy: %w", err)
		}
	}
	if j.Register && j.Image == "" {
		if image, err := r.byName(ctx); err != nil {
			return err
		} else if image != nil && tag(image.Tags, tagRun) == j.Run {
			j.Image = *image.ImageId
		}
	}
	if j.Image != "" {
		if err := r.deregister(ctx, j.Image, j.Copy != nil); err != nil {
			return err
		}
	}
	if j.Task != "" || j.Import != nil {
		if err := r.cancelImport(ctx); err != nil {
			return err
		}
	}
	if j.Start != nil && j.Snapshot == "" {
		if out, err := r.startSnapshot(ctx); err == nil {
			j.Snapshot = *out.SnapshotId
		} else if !isAnswer(err) {
			return fmt.Errorf("find the snapshot: %w", err)
		}
	}
	if j.Snapshot != "" {
		if err := r.deleteSnapshot(ctx, j.Snapshot); err != nil {
			return err
		}
	}
	if j.Object != "" {
		if err := r.deleteObject(ctx, j.Object); err != nil {
			return describe("delete s3://"+r.Bucket+"/"+j.Object, err)
		}
	}
	return j.restart()
}

// isAnswer tells a refusal by AWS from no answer at all.
func isAnswer(err error) bool {
	var api smithy.APIError
	return errors.As(err, &api) && !isPassing(err)
}

// settled is for how long AWS must deny a thing that it has made before it is
// believed: what is fresh is not known everywhere at once.
const settled = 5 * time.Second

func (r *region) deregister(ctx context.Context, image string, withSnapshot bool) error {
	start := time.Now()
	gone := hasCode("InvalidAMIID.NotFound", "InvalidAMIID.Unavailable")
	_, err := try(ctx, r.caller, func(ctx context.Context) (*ec2.DeregisterImageOutput, error) {
		return r.ec2.DeregisterImage(ctx, &ec2.DeregisterImageInput{ImageId: &image, DeleteAssociatedSnapshots: aws.Bool(withSnapshot)})
	}, func(err error) bool { return gone(err) && time.Since(start) < settled })
	if err != nil && !gone(err) {
		return describe("deregister "+image, err)
	}
	return nil
}

func (r *region) deleteSnapshot(ctx context.Context, snapshot string) error {
	for start := time.Now(); ; {
		_, err := try(ctx, r.caller, func(ctx context.Context) (*ec2.DeleteSnapshotOutput, error) {
			return r.ec2.DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: &snapshot})
		})
		switch {
		case err == nil:
			return nil
		case errorCode(err) == "InvalidSnapshot.NotFound":
			if time.Since(start) > settled {
				return nil
			}
		case errorCode(err) == "InvalidSnapshot.InUse" && time.Since(start) < patience:
			// Registered, with an answer that was lost or is not yet known.
			if kept, err := r.deregisterBySnapshot(ctx, snapshot); kept || err != nil {
				return err
			}
		default:
			return describe("delete "+snapshot, err)
		}
		if err := sleep(ctx, time.Second); err != nil {
			return err
		}
	}
}

// deregisterBySnapshot deregisters what this run has made of the snapshot. If
// another run has found it and made an image of it, both are kept.
func (r *region) deregisterBySnapshot(ctx context.Context, snapshot string) (kept bool, err error) {
	out, err := try(ctx, r.caller, func(ctx context.Context) (*ec2.DescribeImagesOutput, error) {
		return r.ec2.DescribeImages(ctx, &ec2.DescribeImagesInput{
			Owners:  []string{"self"},
			Filters: []types.Filter{{Name: aws.String("block-device-mapping.snapshot-id"), Values: []string{snapshot}}},
		})
	})
	if err != nil {
		return false, describe("look for the image of "+snapshot, err)
	}
	for _, image := range out.Images {
		if tag(image.Tags, tagRun) != r.journal.Run {
			r.step("%s uses %s: both are kept", *image.ImageId, snapshot)
			kept = true
		} else if err := r.deregister(ctx, *image.ImageId, false); err != nil {
			return false, err
		}
	}
	return kept, nil
}
