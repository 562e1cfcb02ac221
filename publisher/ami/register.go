package ami

import (
	"context"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// A registrar finds and makes images.
type registrar struct{ *target }

// find looks for the AMI by its name and reports whether it exists. That
// includes one that this run registered before it was killed. A different AMI
// with the name is an error.
func (r registrar) find(ctx context.Context) (bool, error) {
	p := r.publisher
	name := p.options.Name
	image, err := r.aws.images.byName(ctx, name)
	if err != nil || image == nil {
		return false, err
	}
	if image.State == types.ImageStateDisabled {
		return false, fail(ClassNameTaken, "the name %s is taken by %s, which is disabled; enable it with aws ec2 enable-image --region %s --image-id %s, choose another --name, or deregister it",
			name, *image.ImageId, r.region, *image.ImageId)
	}
	if tagValue(image.Tags, TagToken) != r.imageToken {
		if tagValue(image.Tags, TagContent) == p.content {
			return false, fail(ClassNameTaken, "the name %s is taken by %s, which has the same disk but other settings; choose another --name, or deregister it", name, *image.ImageId)
		}
		return false, fail(ClassNameTaken, "the name %s is taken by %s; choose another --name, or deregister it", name, *image.ImageId)
	}
	if err := r.verifyDisk(ctx); err != nil {
		return false, err
	}
	r.found(image)
	r.image.Existing = r.journal == nil || tagValue(image.Tags, tagRun) != r.journal.Run
	if !r.image.Existing {
		return true, r.journal.note(record{Image: *image.ImageId})
	}
	return true, nil
}

// found makes an image the result.
func (r registrar) found(image *types.Image) {
	r.image.Image, r.image.Snapshot = *image.ImageId, rootSnapshot(image)
	state := aws.ToString(image.DeregistrationProtection)
	r.image.protected = strings.HasPrefix(state, "enabled")
	r.image.tags = map[string]string{}
	for _, t := range image.Tags {
		r.image.tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
}

// register makes an image of the snapshot. If another run was faster, its image
// is the result, and the snapshot of this run is removed.
func (r registrar) register(ctx context.Context) error {
	input := r.registerRequest(r.image.Snapshot)
	if err := r.journal.note(record{Register: true}); err != nil {
		return err
	}
	name := r.publisher.options.Name
	r.step("registering %s", name)
	id, err := r.aws.images.register(ctx, input)
	return r.made(ctx, id, err, "register the image "+name)
}

// copy copies the image of another region.
func (r registrar) copy(ctx context.Context, source *target) error {
	if r.journal.Copy == nil {
		if err := r.journal.note(record{Copy: r.copyRequest(source.image.Image, source.region)}); err != nil {
			return err
		}
	}
	r.step("copying %s from %s", source.image.Image, source.region)
	id, err := r.aws.images.copy(ctx, r.journal.Copy)
	return r.made(ctx, id, err, "copy "+source.image.Image+" to "+r.region)
}

// made handles the response to a request that makes an image.
func (r registrar) made(ctx context.Context, id string, err error, action string) error {
	if errorCode(err) == "InvalidAMIName.Duplicate" {
		return r.resolveDuplicate(ctx)
	}
	if err != nil {
		return describe(action, err)
	}
	r.image.Image = id
	return r.journal.note(record{Image: id})
}

// resolveDuplicate finds the image that took the name since find was called:
// this run's, whose response was lost, one that another run made of the same
// disk, or an unrelated one, which is an error.
func (r registrar) resolveDuplicate(ctx context.Context) error {
	for start := time.Now(); ; {
		found, err := r.find(ctx)
		if err != nil {
			return err
		}
		if found {
			break
		}
		if time.Since(start) > patience {
			return fail(ClassNameTaken, "EC2 reports that an image named %s exists, but does not list it; try again later", r.publisher.options.Name)
		}
		if err := sleep(ctx, time.Second); err != nil {
			return err
		}
	}
	if !r.image.Existing {
		return nil
	}
	r.step("using %s, which another run has registered", r.image.Image)
	return undo(ctx, r.target)
}

// wait waits until the image is available.
func (r registrar) wait(ctx context.Context) error {
	id := r.image.Image
	r.step("waiting for %s", id)
	return poll(ctx, id, time.Hour, func(ctx context.Context) (bool, error) {
		image, err := r.aws.images.byID(ctx, id)
		if err != nil {
			return false, describe("wait for "+id, err)
		}
		if image == nil {
			return false, nil
		}
		switch image.State {
		case types.ImageStateAvailable:
			r.found(image)
			return true, nil
		case types.ImageStateFailed, types.ImageStateError, types.ImageStateInvalid, types.ImageStateDeregistered, types.ImageStateDisabled:
			reason := ""
			if image.StateReason != nil {
				reason = ": " + aws.ToString(image.StateReason.Message)
			}
			return false, fail(ClassOther, "%s is %s%s", id, image.State, reason)
		}
		return false, nil
	})
}
