package awstest_test

import (
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

// Terraform's data sources find what was published to the fake. The test is
// skipped without Terraform, which neither Debian nor make test installs.
func TestTerraform(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Terraform's AWS provider, which takes 15 seconds")
	}
	const plugins = "/opt/tf-plugins"
	if _, err := exec.LookPath("terraform"); err != nil {
		t.Skipf("terraform is not installed: %v", err)
	}
	if _, err := os.Stat(filepath.Join(plugins, "registry.terraform.io/hashicorp/aws")); err != nil {
		t.Skipf("Terraform's AWS provider is not installed: %v", err)
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
	terraform := func(args ...string) []byte {
		cmd := exec.CommandContext(t.Context(), "terraform", args...)
		cmd.Dir = dir
		cmd.Env = append(append(os.Environ(), c.fake.Env()...), "CHECKPOINT_DISABLE=1", "HOME="+dir)
		out, err := cmd.Output()
		if err != nil {
			var stderr []byte
			if exit, ok := err.(*exec.ExitError); ok {
				stderr = exit.Stderr
			}
			t.Fatalf("terraform %v: %v\n%s%s", args, err, out, stderr)
		}
		return out
	}
	terraform("init", "-no-color", "-plugin-dir="+plugins)
	terraform("apply", "-no-color", "-auto-approve")
	var outputs map[string]struct{ Value any }
	if err := json.Unmarshal(terraform("output", "-json"), &outputs); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{
		"account": awstest.Account, "ami": image, "snapshot": snapshot, "parameter": image, "instances": instance, "regions": 36.0,
	} {
		if got := outputs[name].Value; got != want {
			t.Errorf("%s is %v, not %v", name, got, want)
		}
	}
	c.clean()
}
