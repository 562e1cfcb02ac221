package ami

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// A finisher tags and shares an image, sets its deprecation date and sets the
// SSM parameter. All of it is idempotent.
type finisher struct{ *target }

// finish does what the options ask for once the image is available.
func finish(ctx context.Context, t *target) error { return finisher{t}.run(ctx) }

func (f finisher) run(ctx context.Context) error {
	o, id := &f.publisher.options, f.image.Image
	if f.image.Existing {
		if err := f.tag(ctx); err != nil {
			return err
		}
	}
	if len(o.Share) > 0 {
		if err := f.share(ctx); err != nil {
			return err
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

// protect protects the image from deregistration, if the options ask for it. That
// is the last step, because a failure of any other deregisters the image.
func protect(ctx context.Context, t *target) error {
	how := t.publisher.options.Protection
	if how == "" || t.image.protected {
		return nil
	}
	t.step("protecting %s from deregistration", t.image.Image)
	if err := t.journal.note(record{Protect: true}); err != nil {
		return err
	}
	if err := t.aws.images.protect(ctx, t.image.Image, how == ProtectionCooldown); err != nil {
		return describe("protect "+t.image.Image+" from deregistration", err)
	}
	return nil
}

// tag gives an existing image and its snapshot the user's tags, which may have
// changed since.
func (f finisher) tag(ctx context.Context) error {
	wanted := f.publisher.options.Tags
	var tags []types.Tag
	for _, key := range slices.Sorted(maps.Keys(wanted)) {
		if value, found := f.image.tags[key]; !found || value != wanted[key] {
			tags = append(tags, types.Tag{Key: &key, Value: aws.String(wanted[key])})
		}
	}
	if tags == nil {
		return nil
	}
	f.step("tagging %s", f.image.Image)
	for _, id := range []string{f.image.Image, f.image.Snapshot} {
		if err := f.aws.snapshots.tag(ctx, id, tags); err != nil {
			return describe("tag "+id, err)
		}
	}
	return nil
}

// share shares the image and its snapshot, without which other accounts can
// start instances of the image, but not copy it. An existing image loses the
// permissions that the options do not list.
func (f finisher) share(ctx context.Context) error {
	id, snapshot, wanted := f.image.Image, f.image.Snapshot, f.publisher.options.Share
	var before, add, remove []string
	var err error
	if f.image.Existing {
		if before, err = f.aws.images.sharedWith(ctx, id); err != nil {
			return describe("read the permissions of "+id, err)
		}
	}
	for _, who := range wanted {
		if !slices.Contains(before, who) {
			add = append(add, who)
		}
	}
	for _, who := range before {
		if !slices.Contains(wanted, who) {
			remove = append(remove, who)
		}
	}
	if add != nil || remove != nil {
		f.step("sharing %s with %s", id, strings.Join(wanted, ", "))
		if err := f.aws.images.share(ctx, id, add, remove); err != nil {
			return describe("share "+id, err)
		}
	}
	if remove != nil {
		// Another image may share the snapshot with the same accounts.
		if users, err := f.aws.images.bySnapshot(ctx, snapshot); err != nil {
			return err
		} else if len(users) > 1 {
			remove = nil
		}
	}
	if err := f.aws.snapshots.share(ctx, snapshot, wanted, remove); err != nil {
		return describe("share "+snapshot, err)
	}
	return nil
}

// launchPermissions converts names as in [Options.Share].
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

// volumePermissions converts names as in [Options.Share]. Snapshots cannot be
// shared with organizations.
func volumePermissions(share []string) []types.CreateVolumePermission {
	var permissions []types.CreateVolumePermission
	for _, p := range launchPermissions(share) {
		if p.UserId != nil || p.Group != "" {
			permissions = append(permissions, types.CreateVolumePermission{UserId: p.UserId, Group: p.Group})
		}
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
