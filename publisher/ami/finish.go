package ami

import (
	"context"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"
)

// finish gives the image its permissions and dates, and its name to a parameter.
// All of it may be done twice.
func (r *region) finish(ctx context.Context) error {
	if len(r.Share) > 0 {
		if err := r.share(ctx); err != nil {
			return err
		}
	}
	if r.DeprecateAfter > 0 {
		at := time.Now().Add(r.DeprecateAfter).UTC().Truncate(time.Minute)
		_, err := try(ctx, r.caller, func(ctx context.Context) (*ec2.EnableImageDeprecationOutput, error) {
			return r.ec2.EnableImageDeprecation(ctx, &ec2.EnableImageDeprecationInput{ImageId: &r.out.Image, DeprecateAt: &at})
		})
		if err != nil {
			return describe("set the deprecation of "+r.out.Image, err)
		}
	}
	if r.SSMParameter != "" {
		return r.setParameter(ctx)
	}
	return nil
}

// share lets others launch the image: accounts by number, organizations and
// their units by ARN, and all by "all".
func (r *region) share(ctx context.Context) error {
	var add []types.LaunchPermission
	for _, who := range r.Share {
		switch {
		case who == "all":
			add = append(add, types.LaunchPermission{Group: types.PermissionGroupAll})
		case strings.Contains(who, ":organization/"):
			add = append(add, types.LaunchPermission{OrganizationArn: aws.String(who)})
		case strings.Contains(who, ":ou/"):
			add = append(add, types.LaunchPermission{OrganizationalUnitArn: aws.String(who)})
		default:
			add = append(add, types.LaunchPermission{UserId: aws.String(who)})
		}
	}
	r.step("sharing %s with %s", r.out.Image, strings.Join(r.Share, ", "))
	_, err := try(ctx, r.caller, func(ctx context.Context) (*ec2.ModifyImageAttributeOutput, error) {
		return r.ec2.ModifyImageAttribute(ctx, &ec2.ModifyImageAttributeInput{
			ImageId:          &r.out.Image,
			LaunchPermission: &types.LaunchPermissionModifications{Add: add},
		})
	})
	if err != nil {
		return describe("share "+r.out.Image, err)
	}
	return nil
}

// parameter is what an SSM parameter was before; nil for none.
type parameter struct{ Value *string }

// setParameter writes the id of the image. SSM itself checks that there is such
// an image. An equal value is not written again.
func (r *region) setParameter(ctx context.Context) error {
	name := r.SSMParameter
	before := &parameter{}
	old, err := try(ctx, r.caller, func(ctx context.Context) (*ssm.GetParameterOutput, error) {
		return r.ssm.GetParameter(ctx, &ssm.GetParameterInput{Name: &name})
	})
	switch {
	case err == nil:
		before.Value = old.Parameter.Value
	case errorCode(err) != "ParameterNotFound":
		return describe("read the parameter "+name, err)
	}
	if aws.ToString(before.Value) == r.out.Image {
		return nil
	}
	r.step("setting %s to %s", name, r.out.Image)
	if r.journal.Parameter == nil { // a run that was killed may have set it
		if err := r.journal.note(record{Parameter: before}); err != nil {
			return err
		}
	}
	return r.putParameter(ctx, r.out.Image)
}

func (r *region) putParameter(ctx context.Context, value string) error {
	_, err := try(ctx, r.caller, func(ctx context.Context) (*ssm.PutParameterOutput, error) {
		return r.ssm.PutParameter(ctx, &ssm.PutParameterInput{
			Name:      &r.SSMParameter,
			Value:     &value,
			Type:      ssmtypes.ParameterTypeString,
			DataType:  aws.String("aws:ec2:image"),
			Overwrite: aws.Bool(true),
		})
	})
	if err != nil {
		return describe("set the parameter "+r.SSMParameter, err)
	}
	return nil
}

// undoParameter restores the parameter.
func (r *region) undoParameter(ctx context.Context) error {
	if before := r.journal.Parameter.Value; before != nil {
		return r.putParameter(ctx, *before)
	}
	_, err := try(ctx, r.caller, func(ctx context.Context) (*ssm.DeleteParameterOutput, error) {
		return r.ssm.DeleteParameter(ctx, &ssm.DeleteParameterInput{Name: &r.SSMParameter})
	})
	if errorCode(err) == "ParameterNotFound" {
		return nil
	}
	return err
}
