package ami

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
)

// parameters are those of the SSM parameter store.
type parameters struct {
	ssm    *ssm.Client
	caller caller
}

// A parameter is the state of an SSM parameter. Its value is nil if it does not
// exist.
type parameter struct {
	Value          *string
	Type, DataType string `json:",omitempty"`
}

// get returns the state of a parameter.
func (p parameters) get(ctx context.Context, name string) (parameter, error) {
	out, err := call(ctx, p.caller, p.ssm.GetParameter, &ssm.GetParameterInput{Name: &name})
	if errorCode(err) == "ParameterNotFound" {
		return parameter{}, nil
	}
	if err != nil {
		return parameter{}, describe("read the parameter "+name, err)
	}
	return parameter{out.Parameter.Value, string(out.Parameter.Type), aws.ToString(out.Parameter.DataType)}, nil
}

// put sets a parameter and waits until it has the value: SSM answers before it
// checks that the value of a parameter for images is one, and keeps the old
// value if it is not. The type remains that of before, because SSM does not
// change it.
func (p parameters) put(ctx context.Context, name, value string, before parameter) error {
	input := &ssm.PutParameterInput{
		Name:      &name,
		Value:     &value,
		Type:      types.ParameterType(before.Type),
		DataType:  &before.DataType,
		Overwrite: aws.Bool(true),
	}
	if before.Value == nil {
		input.Type, input.DataType = types.ParameterTypeString, aws.String("aws:ec2:image")
	}
	if _, err := call(ctx, p.caller, p.ssm.PutParameter, input); err != nil {
		return describe("set the parameter "+name, err)
	}
	limit := 6 * p.caller.attempt
	for start, delay := time.Now(), firstDelay; ; delay = min(2*delay, time.Second) {
		now, err := p.get(ctx, name)
		if err != nil {
			return err
		}
		if aws.ToString(now.Value) == value {
			return nil
		}
		if time.Since(start) > limit {
			state := "does not exist"
			if now.Value != nil {
				state = "is still " + *now.Value
			}
			return fail(ClassOther, "SSM did not set the parameter %s to %s: %v after the request, the parameter %s", name, value, limit, state)
		}
		if err := sleep(ctx, delay); err != nil {
			return err
		}
	}
}

// images adds the values of all parameters, which may be IDs of images, to used.
func (p parameters) images(ctx context.Context, used map[string]string) error {
	var names []string
	for page, err := range pages(ctx, p.caller, ssm.NewDescribeParametersPaginator(p.ssm, &ssm.DescribeParametersInput{
		ParameterFilters: []types.ParameterStringFilter{{
			Key: aws.String("Type"), Option: aws.String("Equals"), Values: []string{string(types.ParameterTypeString), string(types.ParameterTypeStringList)},
		}},
	})) {
		if err != nil {
			return describe("list SSM parameters", err)
		}
		for _, one := range page.Parameters {
			names = append(names, *one.Name)
		}
	}
	for some := range slices.Chunk(names, 10) { // the limit of the API
		out, err := call(ctx, p.caller, p.ssm.GetParameters, &ssm.GetParametersInput{Names: some})
		if err != nil {
			return describe("read SSM parameters", err)
		}
		for _, one := range out.Parameters {
			for value := range strings.SplitSeq(aws.ToString(one.Value), ",") {
				used[strings.TrimSpace(value)] = "the SSM parameter " + *one.Name + " names it"
			}
		}
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
