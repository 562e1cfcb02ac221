package awstest_test

import (
	"slices"
	"testing"

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
	ami := *must(c.ec2.RegisterImage(c.ctx, imageInput("machine", c.snapshot(nil, nil)))).ImageId
	in.Value, in.DataType, in.Overwrite = &ami, aws.String("aws:ec2:image"), aws.Bool(true)
	if v := must(c.ssm.PutParameter(c.ctx, in)).Version; v != 2 {
		t.Errorf("the version is %d", v)
	}
	if got := must(c.ssm.GetParameter(c.ctx, &ssm.GetParameterInput{Name: &name})).Parameter; *got.Value != ami || *got.DataType != "aws:ec2:image" {
		t.Errorf("the parameter is %+v", got)
	}
	both := must(c.ssm.GetParameters(c.ctx, &ssm.GetParametersInput{Names: []string{name, "other"}}))
	if len(both.Parameters) != 1 || !slices.Equal(both.InvalidParameters, []string{"other"}) {
		t.Errorf("the parameters are %+v", both)
	}
	must(c.ssm.DeleteParameter(c.ctx, &ssm.DeleteParameterInput{Name: &name}))
	if _, err := c.ssm.GetParameter(c.ctx, &ssm.GetParameterInput{Name: &name}); code(err) != "ParameterNotFound" {
		t.Error(err)
	}
	c.clean()
	in.Value = aws.String("ami-00000000000000000")
	if _, err := c.ssm.PutParameter(c.ctx, in); code(err) != "ValidationException" {
		t.Error(err)
	}
	c.violated("is not an image")
}
