package ami

import (
	"context"
	"errors"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"github.com/aws/smithy-go"
)

// An inspector asks AWS before an upload what it would refuse afterwards. It
// changes nothing and needs no journal.
type inspector struct{ *target }

// inspect checks a target, whose image exists already if found is set. The
// source is nil unless the target gets a copy of the source's image.
func inspect(ctx context.Context, t, source *target, found bool) error {
	i := inspector{t}
	steps := []func(context.Context) error{i.publicAccess, i.sharing, i.parameter, i.launch}
	switch {
	case found:
	case source != nil:
		steps = append(steps, func(ctx context.Context) error { return i.copy(ctx, source) })
	case i.publisher.options.Method == MethodImport:
		steps = append(steps, i.registration, i.bucket, i.role, i.importTask)
	default:
		steps = append(steps, i.registration)
	}
	if !found {
		steps = append(steps, i.bin)
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// IDs of resources that do not exist yet.
const (
	futureSnapshot = "snap-00000000000000000"
	futureImage    = "ami-00000000000000000"
)

// refused returns the error of a dry run, or nil if the real request would
// succeed. The resource that only the real run makes may be missing; missing is
// the start of the error codes that say so.
func refused(action, missing string, err error) error {
	var api smithy.APIError
	if errors.As(err, &api) && (api.ErrorCode() == "DryRunOperation" || strings.HasPrefix(api.ErrorCode(), missing)) {
		return nil
	}
	if err == nil {
		return nil
	}
	return describe(action, err)
}

// registration tries the request that registers the image, with its tags and
// description: policies can require them.
func (i inspector) registration(ctx context.Context) error {
	return refused("check the registration of the image", "InvalidSnapshot", i.aws.images.tryRegister(ctx, i.registerRequest(futureSnapshot)))
}

// copy tries the request that copies the image.
func (i inspector) copy(ctx context.Context, source *target) error {
	return refused("check the copy of the image", "InvalidAMIID", i.aws.images.tryCopy(ctx, i.copyRequest(futureImage, source.region)))
}

// importTask tries the request that imports the snapshot.
func (i inspector) importTask(ctx context.Context) error {
	key := objectPrefix + i.run() + ".raw"
	return refused("check the import of the snapshot", "InvalidParameter", i.aws.imports.try(ctx, i.importRequest(key)))
}

// bucket checks that the bucket exists in the region.
func (i inspector) bucket(ctx context.Context) error {
	bucket := i.publisher.options.Bucket
	region, err := i.aws.objects.region(ctx, bucket)
	switch {
	case hasCode("NotFound", "NoSuchBucket")(err):
		return fail(ClassUsage, "the bucket %s does not exist: create it in %s, or choose another --bucket", bucket, i.region)
	case region != "" && region != i.region:
		return fail(ClassUsage, "the bucket %s is in %s, but the import needs one in %s", bucket, region, i.region)
	case err != nil && errorCode(err) != "Forbidden": // the upload needs no permission to list
		return describe("look for the bucket "+bucket, err)
	}
	return nil
}

// role checks that the service role exists, if the credentials permit to look.
func (i inspector) role(ctx context.Context) error {
	role := i.publisher.options.Role
	_, err := call(ctx, i.aws.imports.caller, i.aws.iam.GetRole, &iam.GetRoleInput{RoleName: &role})
	switch {
	case errorCode(err) == "NoSuchEntity":
		return fail(ClassUsage, "the role %s does not exist: create it as examples/aws/terraform does, or choose another --role", role)
	case err != nil && ClassOf(err) != ClassPermission:
		return describe("look for the role "+role, err)
	}
	return nil
}

// publicAccess checks that the account permits to share publicly, if the
// credentials permit to look.
func (i inspector) publicAccess(ctx context.Context) error {
	if !i.publisher.options.sharesWithAll() {
		return nil
	}
	for kind, blocked := range map[string]func(context.Context) (bool, error){"image": i.aws.images.isPublicBlocked, "snapshot": i.aws.snapshots.isPublicBlocked} {
		is, err := blocked(ctx)
		if err != nil && ClassOf(err) != ClassPermission {
			return err
		}
		if is {
			return fail(ClassPermission, "the account blocks public access to %ss in %s, so that nothing can be shared with all; see aws ec2 get-%s-block-public-access-state --region %s", kind, i.region, kind, i.region)
		}
	}
	return nil
}

// sharing checks that the encryption of the snapshot permits to share it.
func (i inspector) sharing(ctx context.Context) error {
	o := &i.publisher.options
	if len(o.Share) == 0 || i.key != "" {
		return nil // check has rejected a key together with all
	}
	encrypted := o.Encrypt
	if !encrypted && !strings.HasPrefix(o.Parent, "snap-") {
		var err error
		if encrypted, err = i.aws.snapshots.encryptedByDefault(ctx); ClassOf(err) == ClassPermission {
			return nil
		} else if err != nil {
			return err
		}
	}
	if !encrypted {
		return nil
	}
	if o.sharesWithAll() {
		return fail(ClassUsage, "%s encrypts all new snapshots, and an encrypted image cannot be shared with all", i.region)
	}
	key, err := i.aws.snapshots.defaultKey(ctx)
	if ClassOf(err) == ClassPermission {
		return nil
	} else if err != nil {
		return err
	}
	if strings.HasSuffix(key, "alias/aws/ebs") {
		return fail(ClassUsage, "the snapshot would be encrypted with the account's default key %s in %s, and other accounts cannot use that key: use --kms-key with a key that they may use", key, i.region)
	}
	return nil
}

// launch tries the request that starts an instance of an existing image. For an
// image that does not exist yet, EC2 refuses the dry run if a policy requires a
// tag of the image.
func (i inspector) launch(ctx context.Context) error {
	if i.publisher.options.Launch == nil || i.image.Image == "" {
		return nil
	}
	return refused("check the start of an instance", "InvalidAMIID", i.aws.instances.tryRun(ctx, i.launcher().request()))
}

// parameter checks that the SSM parameter can hold the ID of an image.
func (i inspector) parameter(ctx context.Context) error {
	name := i.publisher.options.SSMParameter
	if name == "" {
		return nil
	}
	now, err := i.aws.parameters.get(ctx, name)
	if err == nil && now.Type == string(types.ParameterTypeSecureString) {
		return fail(ClassUsage, "the parameter %s is a SecureString, whose value could not be restored after a failure: use a parameter of the type String", name)
	}
	return err
}
