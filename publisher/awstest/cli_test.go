package awstest_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/slipway-build/slipway/internal/testutil/stack"
	"github.com/slipway-build/slipway/publisher/awstest"
)

// The AWS CLI finds an image, runs it, reads its console, replaces the root
// volume and terminates the instance, over TLS.
func TestCLI(t *testing.T) {
	program := stack.File(t, "moto", "bin", "aws") // hack/moto installs it
	c := startTLS(t, awstest.Knobs{Console: func(awstest.InstanceInfo) []byte { return []byte("machine is up\r\n") }})
	id := c.snapshot(map[int32][]byte{0: noise(1, awstest.BlockSize)}, nil)
	image := *must(c.ec2.RegisterImage(c.ctx, imageInput("machine", id))).ImageId

	// run runs the CLI and returns a part of its answer.
	run := func(query string, args ...string) (value string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), program, append([]string{"ec2", "--output", "json", "--query", query}, args...)...)
		cmd.Env = append(os.Environ(), "AWS_DEFAULT_REGION="+awstest.Region)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v: %s", args, err, stderr.String())
		}
		if err := json.Unmarshal(out, &value); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
		return value
	}
	if got := run("Images[0].ImageId", "describe-images", "--owners", "self", "--filters", "Name=name,Values=mach*"); got != image {
		t.Errorf("the image is %s, not %s", got, image)
	}
	instance := run("Instances[0].InstanceId", "run-instances", "--image-id", image, "--instance-type", "t3.micro",
		"--tag-specifications", "ResourceType=instance,Tags=[{Key=Name,Value=canary}]")
	if got := run("Tags[0].Value", "describe-tags", "--filters", "Name=resource-id,Values="+instance); got != "canary" {
		t.Errorf("the tag is %q", got)
	}
	c.fake.Advance(time.Minute)
	if got := run("Output", "get-console-output", "--instance-id", instance, "--latest"); got != "machine is up\r\n" {
		t.Errorf("the console is %q", got)
	}
	task := run("ReplaceRootVolumeTask.ReplaceRootVolumeTaskId", "create-replace-root-volume-task", "--instance-id", instance, "--image-id", image, "--delete-replaced-root-volume")
	c.fake.Advance(time.Minute)
	if got := run("ReplaceRootVolumeTasks[0].TaskState", "describe-replace-root-volume-tasks", "--replace-root-volume-task-ids", task); got != "succeeded" {
		t.Errorf("the task is %s", got)
	}
	if got := run("TerminatingInstances[0].CurrentState.Name", "terminate-instances", "--instance-ids", instance); got != "terminated" { // Knobs.Settle is 0
		t.Errorf("the instance is %s", got)
	}
	c.clean()
}
