package awstest_test

import (
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/slipway-build/slipway/publisher/awstest"
)

func TestParameters(t *testing.T) {
	c := start(t, awstest.Knobs{})
	name := "/slipway/machine"
	in := &ssm.PutParameterInput{Name: &name, Value: aws.String("one"), Type: ssmtypes.ParameterTypeString}
	must(c.ssm.PutParameter(c.ctx, in))
	if _, err := c.ssm.PutParameter(c.ctx, in); code(err) != "ParameterAlreadyExists" {
		t.Error(err)
	}
	in.Value, in.Overwrite = aws.String("two"), aws.Bool(true)
	if v := must(c.ssm.PutParameter(c.ctx, in)).Version; v != 2 {
		t.Errorf("the version is %d", v)
	}
	both := must(c.ssm.GetParameters(c.ctx, &ssm.GetParametersInput{Names: []string{name, "other"}}))
	if len(both.Parameters) != 1 || *both.Parameters[0].Value != "two" || !slices.Equal(both.InvalidParameters, []string{"other"}) {
		t.Errorf("the parameters are %+v", both)
	}
	in.DataType = aws.String("aws:ec2:image")
	if _, err := c.ssm.PutParameter(c.ctx, in); code(err) != "ValidationException" {
		t.Errorf("changed data type: %v", err)
	}
	must(c.ssm.DeleteParameter(c.ctx, &ssm.DeleteParameterInput{Name: &name}))
	if _, err := c.ssm.GetParameter(c.ctx, &ssm.GetParameterInput{Name: &name}); code(err) != "ParameterNotFound" {
		t.Error(err)
	}
	c.clean()
}

// SSM validates images after the answer of PutParameter.
func TestImageParameters(t *testing.T) {
	c := start(t, awstest.Knobs{})
	image := *must(c.ec2.RegisterImage(c.ctx, imageInput("machine", c.snapshot(nil, nil)))).ImageId
	c.fake.SetKnobs(awstest.Knobs{Settle: time.Minute})
	name := "/slipway/machine"
	put := func(image string) {
		must(c.ssm.PutParameter(c.ctx, &ssm.PutParameterInput{
			Name: &name, Value: &image, Type: ssmtypes.ParameterTypeString, DataType: aws.String("aws:ec2:image"), Overwrite: aws.Bool(true),
		}))
	}
	get := func() (string, error) {
		out, err := c.ssm.GetParameter(c.ctx, &ssm.GetParameterInput{Name: &name})
		if err != nil {
			return "", err
		}
		return *out.Parameter.Value, nil
	}
	put(image)
	if _, err := get(); code(err) != "ParameterNotFound" {
		t.Errorf("before the validation: %v", err)
	}
	c.fake.Advance(time.Minute)
	if got, err := get(); got != image {
		t.Errorf("after the validation: %q, %v", got, err)
	}
	c.clean()
	put("ami-00000000000000000")
	c.fake.Advance(time.Minute)
	if got, err := get(); got != image {
		t.Errorf("after an image that does not exist: %q, %v", got, err)
	}
	c.violated("is not an image")
}
