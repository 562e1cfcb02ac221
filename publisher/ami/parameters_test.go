package ami_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/slipway-build/slipway/publisher/ami"
	"github.com/slipway-build/slipway/publisher/awstest"
)

const parameter = "/machine/latest"

// parameterOf returns the parameter's value and data type, or "" if it does not
// exist.
func parameterOf(t testing.TB, fake *awstest.Server) string {
	t.Helper()
	out, err := ssm.NewFromConfig(configure(t, fake)).GetParameter(context.Background(), &ssm.GetParameterInput{Name: aws.String(parameter)})
	if err != nil {
		return ""
	}
	return *out.Parameter.Value + " " + *out.Parameter.DataType
}

func putParameter(t testing.TB, fake *awstest.Server, value, dataType string) {
	t.Helper()
	_, err := ssm.NewFromConfig(configure(t, fake)).PutParameter(t.Context(), &ssm.PutParameterInput{
		Name: aws.String(parameter), Value: &value, DataType: &dataType, Type: ssmtypes.ParameterTypeString,
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestParameterIsReadBack publishes while SSM checks images late: the parameter
// must have its value when the publish ends.
func TestParameterIsReadBack(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{Settle: 500 * time.Millisecond})
	image := mustPublish(t, fake, write(t, content(1, 3)), ami.Options{SSMParameter: parameter}).Images[0].Image
	if got := parameterOf(t, fake); got != image+" aws:ec2:image" {
		t.Errorf("the parameter is %q, not %s", got, image)
	}
}

// TestParameterIsRejected removes the image between the answer of SSM and its
// check, so that the parameter keeps its value.
func TestParameterIsRejected(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{})
	old := mustPublish(t, fake, write(t, content(1, 3)), ami.Options{SSMParameter: parameter}).Images[0].Image
	client := ec2.NewFromConfig(configure(t, fake))
	var image atomic.Pointer[string]
	fake.SetKnobs(awstest.Knobs{Settle: 300 * time.Millisecond, Faults: func(r awstest.Request) awstest.Fault {
		if r.Operation == "GetParameter" && image.Load() != nil {
			_, _ = client.DeregisterImage(context.Background(), &ec2.DeregisterImageInput{ImageId: image.Swap(nil)})
		}
		if r.Operation == "PutParameter" && r.Attempt == 2 { // not that of the undo
			out, err := client.DescribeImages(context.Background(), &ec2.DescribeImagesInput{Owners: []string{"self"}})
			if err == nil {
				for _, im := range out.Images {
					if *im.ImageId != old {
						image.Store(im.ImageId)
					}
				}
			}
		}
		return awstest.None
	}})
	state := t.TempDir()
	_, err := publish(t.Context(), t, fake, write(t, content(2, 3)), ami.Options{Name: "machine-2", SSMParameter: parameter, State: state, Timeout: 500 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "the parameter is still "+old) {
		t.Errorf("got %v", err)
	}
	if got := parameterOf(t, fake); got != old+" aws:ec2:image" {
		t.Errorf("the parameter is %q, not %s", got, old)
	}
	noOrphans(t, fake)
}

// failsLate publishes to two regions. The second one denies the parameter after
// the first one has set it.
func failsLate(t *testing.T, fake *awstest.Server, more ...string) error {
	t.Helper()
	var set atomic.Bool
	deny := `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"},
		{"Effect": "Deny", "Action": "ssm:PutParameter", "Resource": "*", "Condition": {"StringEquals": {"aws:RequestedRegion": "eu-west-1"}}}]}`
	fake.SetKnobs(awstest.Knobs{Denied: more, Policies: []string{deny}, Faults: func(r awstest.Request) awstest.Fault {
		if r.Operation == "PutParameter" {
			if r.Region == home {
				set.Store(true)
			} else {
				for !set.Load() {
					time.Sleep(10 * time.Millisecond)
				}
				time.Sleep(500 * time.Millisecond)
			}
		}
		return awstest.None
	}})
	_, err := publish(t.Context(), t, fake, write(t, content(2, 3)), ami.Options{Name: "machine-2", SSMParameter: parameter, Regions: []string{home, "eu-west-1"}})
	if ami.ClassOf(err) != ami.ClassPermission {
		t.Errorf("got %v", err)
	}
	noOrphans(t, fake)
	return err
}

// TestParameterIsRestored checks that the undo restores the old value and type
// of the parameter.
func TestParameterIsRestored(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{})
	old := mustPublish(t, fake, write(t, content(1, 3)), ami.Options{}).Images[0].Image
	for _, before := range []string{"ami-by-hand text", old + " aws:ec2:image", ""} {
		if value, dataType, exists := strings.Cut(before, " "); exists {
			putParameter(t, fake, value, dataType)
		}
		_ = failsLate(t, fake)
		fake.SetKnobs(awstest.Knobs{})
		if got := parameterOf(t, fake); got != before {
			t.Errorf("the parameter is %q, not %q", got, before)
		}
		if before != "" {
			_, err := ssm.NewFromConfig(configure(t, fake)).DeleteParameter(t.Context(), &ssm.DeleteParameterInput{Name: aws.String(parameter)})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if left := fake.Snapshots(); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

// TestUndoContinues denies one step of the undo. The others must be made, and
// the error must say what is left.
func TestUndoContinues(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{})
	err := failsLate(t, fake, "ssm:DeleteParameter")
	if err == nil || !strings.Contains(err.Error(), "could not undo everything (us-east-1: delete the parameter "+parameter) {
		t.Errorf("got %v", err)
	}
	if left := fake.Snapshots(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestSecureParameter checks that a value that cannot be restored is not
// overwritten.
func TestSecureParameter(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{})
	_, err := ssm.NewFromConfig(configure(t, fake)).PutParameter(t.Context(), &ssm.PutParameterInput{
		Name: aws.String(parameter), Value: aws.String("secret"), Type: ssmtypes.ParameterTypeSecureString,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := publish(t.Context(), t, fake, write(t, content(1, 3)), ami.Options{SSMParameter: parameter}); ami.ClassOf(err) != ami.ClassUsage {
		t.Errorf("got %v", err)
	}
}
