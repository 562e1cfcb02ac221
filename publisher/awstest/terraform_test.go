package awstest_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/slipway-build/slipway/publisher/awstest"
)

// A terraform runs Terraform in a directory.
type terraform struct {
	testing.TB
	dir string
	env []string
}

// newTerraform initializes Terraform in a directory. It skips the test if
// Terraform or the AWS provider is missing.
func newTerraform(t *testing.T, dir string, env []string) terraform {
	t.Helper()
	const plugins = "/opt/tf-plugins"
	if _, err := exec.LookPath("terraform"); err != nil {
		t.Skip("terraform is not installed: ", err)
	}
	if _, err := os.Stat(filepath.Join(plugins, "registry.terraform.io/hashicorp/aws")); err != nil {
		t.Skip("the AWS provider of Terraform is not installed: ", err)
	}
	config := filepath.Join(t.TempDir(), "terraformrc") // that of the user could change the test
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tf := terraform{t, dir, append(append(os.Environ(), env...), "CHECKPOINT_DISABLE=1", "HOME="+dir, "TF_CLI_CONFIG_FILE="+config)}
	tf.run("init", "-plugin-dir="+plugins)
	return tf
}

// run runs a command of Terraform, which must succeed, and returns its output.
func (tf terraform) run(args ...string) []byte {
	tf.Helper()
	cmd := exec.CommandContext(tf.Context(), "terraform", args[0], "-no-color")
	cmd.Args = append(cmd.Args, args[1:]...)
	cmd.Dir, cmd.Env = tf.dir, tf.env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		tf.Fatalf("terraform %v: %v\n%s%s", args, err, out, stderr.Bytes())
	}
	return out
}

// outputsOf decodes the output of terraform output -json.
func outputsOf(t *testing.T, text []byte) map[string]any {
	t.Helper()
	var in map[string]struct{ Value any }
	if err := json.Unmarshal(text, &in); err != nil {
		t.Fatal(err)
	}
	out := map[string]any{}
	for name, one := range in {
		out[name] = one.Value
	}
	return out
}

// Terraform's data sources find what was published to the fake. The test is
// skipped without Terraform, which neither Debian nor make test installs.
func TestTerraform(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Terraform's AWS provider, which takes 15 seconds")
	}
	c := start(t, awstest.Knobs{})
	snapshot := c.snapshot(nil, nil)
	image := *must(c.ec2.RegisterImage(c.ctx, imageInput("machine", snapshot))).ImageId
	must(c.ssm.PutParameter(c.ctx, &ssm.PutParameterInput{
		Name: aws.String("/slipway/machine"), Value: &image, Type: ssmtypes.ParameterTypeString, DataType: aws.String("aws:ec2:image"),
	}))
	instance := *must(c.ec2.RunInstances(c.ctx, runInput(image))).Instances[0].InstanceId

	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.tf"), must(os.ReadFile("testdata/data.tf")), 0o644); err != nil {
		t.Fatal(err)
	}
	terraform := newTerraform(t, dir, c.fake.Env()).run
	terraform("apply", "-auto-approve")
	outputs := outputsOf(t, terraform("output", "-json"))
	for name, want := range map[string]any{
		"account": awstest.Account, "ami": image, "snapshot": snapshot, "parameter": image, "root": snapshot, "instances": instance, "regions": 36.0,
	} {
		if got := outputs[name]; got != want {
			t.Errorf("%s is %v, not %v", name, got, want)
		}
	}
	c.clean()
}
