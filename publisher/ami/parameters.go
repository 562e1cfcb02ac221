package ami

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
)

// parameters are those of the SSM parameter store.
type parameters struct {
	ssm    *ssm.Client
	caller caller
}

// get returns the value of a parameter, or nil if it does not exist.
func (p parameters) get(ctx context.Context, name string) (*string, error) {
	out, err := call(ctx, p.caller, p.ssm.GetParameter, &ssm.GetParameterInput{Name: &name})
	if errorCode(err) == "ParameterNotFound" {
		return nil, nil
	}
	if err != nil {
		return nil, describe("read the parameter "+name, err)
	}
	return out.Parameter.Value, nil
}

// put sets a parameter to the ID of an image. SSM checks that the image exists.
func (p parameters) put(ctx context.Context, name, image string) error {
	_, err := call(ctx, p.caller, p.ssm.PutParameter, &ssm.PutParameterInput{
		Name:      &name,
		Value:     &image,
		Type:      types.ParameterTypeString,
		DataType:  aws.String("aws:ec2:image"),
		Overwrite: aws.Bool(true),
	})
	if err != nil {
		return describe("set the parameter "+name, err)
	}
	return nil
}

// delete removes a parameter. It succeeds if the parameter is gone.
func (p parameters) delete(ctx context.Context, name string) error {
	_, err := call(ctx, p.caller, p.ssm.DeleteParameter, &ssm.DeleteParameterInput{Name: &name})
	if errorCode(err) == "ParameterNotFound" {
		return nil
	}
	return err
}
