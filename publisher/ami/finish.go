package ami

import (
	"context"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// A finisher shares an image, sets its deprecation date and sets the SSM
// parameter. All of it is idempotent.
type finisher struct{ *target }

// finish does what the options ask for once the image is available.
func finish(ctx context.Context, t *target) error { return finisher{t}.run(ctx) }

func (f finisher) run(ctx context.Context) error {
	o, id := &f.publisher.options, f.image.Image
	if len(o.Share) > 0 {
		f.step("sharing %s with %s", id, strings.Join(o.Share, ", "))
		if err := f.aws.images.share(ctx, id, launchPermissions(o.Share)); err != nil {
			return describe("share "+id, err)
		}
	}
	if o.DeprecateAfter > 0 {
		at := time.Now().Add(o.DeprecateAfter).UTC().Truncate(time.Minute)
		if err := f.aws.images.deprecate(ctx, id, at); err != nil {
			return describe("set the deprecation date of "+id, err)
		}
	}
	if o.SSMParameter != "" {
		return f.setParameter(ctx)
	}
	return nil
}

// launchPermissions converts [Options.Share].
func launchPermissions(share []string) []types.LaunchPermission {
	var permissions []types.LaunchPermission
	for _, who := range share {
		var permission types.LaunchPermission
		switch {
		case who == "all":
			permission.Group = types.PermissionGroupAll
		case strings.Contains(who, ":organization/"):
			permission.OrganizationArn = &who
		case strings.Contains(who, ":ou/"):
			permission.OrganizationalUnitArn = &who
		default:
			permission.UserId = &who
		}
		permissions = append(permissions, permission)
	}
	return permissions
}

// setParameter sets the parameter to the ID of the image, unless it has that
// value.
func (f finisher) setParameter(ctx context.Context) error {
	name := f.publisher.options.SSMParameter
	before, err := f.aws.parameters.get(ctx, name)
	if err != nil || aws.ToString(before.Value) == f.image.Image {
		return err
	}
	f.step("setting %s to %s", name, f.image.Image)
	if f.journal.Parameter == nil { // otherwise a killed run may have set it
		if err := f.journal.note(record{Parameter: &before}); err != nil {
			return err
		}
	}
	return f.aws.parameters.put(ctx, name, f.image.Image, before)
}
