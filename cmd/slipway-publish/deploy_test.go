package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/slipway-build/slipway/publisher/ami"
	"github.com/slipway-build/slipway/publisher/awstest"
)

// machineUp is the console output of a machine that is up.
func machineUp(awstest.InstanceInfo) []byte {
	return []byte("[   1.00] machine is up, services started: 2\r\n")
}

// runInstance starts an instance of an image, as a user does.
func runInstance(t testing.TB, fake *awstest.Server, image string) string {
	t.Helper()
	client := ec2.New(ec2.Options{
		Region: awstest.Region, BaseEndpoint: aws.String(fake.URL()), HTTPClient: fake.Client(),
		Credentials: credentials.NewStaticCredentialsProvider(awstest.AccessKeyID, awstest.SecretAccessKey, ""),
	})
	out, err := client.RunInstances(t.Context(), &ec2.RunInstancesInput{
		ImageId: &image, InstanceType: types.InstanceTypeT3Micro, MinCount: aws.Int32(1), MaxCount: aws.Int32(1),
	})
	if err != nil {
		t.Fatal(err)
	}
	return *out.Instances[0].InstanceId
}

// publishJSON publishes machine.raw and returns the image.
func (h host) publishJSON(t testing.TB, args ...string) *ami.Image {
	t.Helper()
	out, code, message := h.run(nil, append([]string{"aws", "--json", "machine.raw"}, args...)...)
	var result ami.Result
	if err := json.Unmarshal([]byte(out), &result); err != nil || code != 0 {
		t.Fatalf("exit %d: %s%s", code, out, message)
	}
	return result.Images[0]
}

func TestDeploy(t *testing.T) {
	fake := awstest.StartTLS(t, awstest.Knobs{Console: machineUp})
	h := newHost(t, fake, content(1, 5))
	first := h.publishJSON(t, "--name", "machine-1", "--launch", "--launch-type", "t3.nano", "--launch-security-group", "sg-0123456789abcdef0", "--launch-subnet", "subnet-0123456789abcdef0")
	if test := fake.Instances()[0]; !first.Tested || test.Type != "t3.nano" || test.State != "terminated" {
		t.Errorf("tested %+v with %+v", first, test)
	}
	id := runInstance(t, fake, first.Image)
	second := h.publishJSON(t, "--name", "machine-2", "--volume-size", "2").Image

	out, code, message := h.run(nil, "aws", "deploy", second, "--instance", id, "--dry-run")
	if want := second + " can be deployed to 1 instances in us-east-1\n"; code != 0 || out != want {
		t.Errorf("exit %d: %s%s", code, out, message)
	}
	out, code, message = h.run(nil, "aws", "deploy", second, "--instance", id, "--launch", "--ssm-parameter", "/machine")
	want := second + ": an instance was up and is terminated\n" + second + ": " + id + " (vol-"
	if code != 0 || !strings.HasPrefix(out, want) || !strings.Contains(out, ", kept vol-") || !strings.HasSuffix(out, ")\n"+second+": /machine\n") {
		t.Errorf("exit %d: %s%s", code, out, message)
	}
	out, code, message = h.run(nil, "aws", "deploy", second, "--instance", id)
	if code != 0 || !strings.HasSuffix(out, ", runs it already)\n") {
		t.Errorf("exit %d: %s%s", code, out, message)
	}
	other := newHost(t, fake, content(2, 5)).publishJSON(t, "--name", "machine-3").Image
	out, code, message = h.run(nil, "aws", "deploy", other, "--instance", id, "--json")
	var d ami.Deployment
	if err := json.Unmarshal([]byte(out), &d); err != nil || code != 0 || len(d.Instances) != 1 || d.Instances[0].OldVolume == "" {
		t.Errorf("exit %d: %s%s", code, out, message)
	}
	out, code, message = h.run(nil, "aws", "deploy", first.Image, "--instance", id, "--delete-old-volume")
	if code != 0 || !strings.Contains(out, ", replaced by replacevol-") || strings.Contains(out, "kept") {
		t.Errorf("exit %d: %s%s", code, out, message)
	}

	knobs := fake.Knobs()
	knobs.Console = func(awstest.InstanceInfo) []byte { return []byte("\x1b[31mKernel panic - not syncing: no init\r\n") }
	fake.SetKnobs(knobs)
	_, code, message = h.run(nil, "aws", "--name", "machine-4", "--volume-size", "3", "--launch", "--ssm-parameter", "/machine", "machine.raw")
	if code != 3 || !strings.Contains(message, `does not boot: "Kernel panic - not syncing: no init"`) || strings.Contains(message, "\x1b") {
		t.Errorf("exit %d: %q", code, message)
	}
	for _, i := range fake.Instances() {
		if (i.State == "running") != (i.ID == id) {
			t.Errorf("%+v", i)
		}
	}
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{}, "0 AMIs instead of one"},
		{[]string{second}, "nothing to do"},
		{[]string{second, "--launch-type", "t3.nano"}, "--launch-type requires --launch"},
		{[]string{second, "--instance", id, "--wait-timeout", "0s"}, "--wait-timeout must be greater than zero"},
		{[]string{second, "--instance", id, "--wait-port", "99999"}, "invalid port 99999"},
		{[]string{second, "--instance", id, "--region", "us-east-1,eu-west-1"}, "exists in one region"},
		{[]string{second, "--launch", "--launch-console", "("}, "invalid expression"},
	} {
		if _, code, message := h.run(nil, append([]string{"aws", "deploy"}, test.args...)...); code != 2 || !strings.Contains(message, test.want) || strings.Count(message, "\n") != 1 {
			t.Errorf("%q: exit %d: %s", test.args, code, message)
		}
	}
	if _, code, message := h.run(nil, "aws", "--wait-port", "22", "machine.raw"); code != 2 || !strings.Contains(message, "--wait-port requires --launch") {
		t.Errorf("exit %d: %s", code, message)
	}
}

func TestKeepLast(t *testing.T) {
	fake := awstest.StartTLS(t, awstest.Knobs{})
	h := newHost(t, fake, content(1, 2))
	first := h.publishJSON(t, "--name", "web-1", "--tag", "Team=infra").Image
	fake.Advance(time.Second)
	second := h.publishJSON(t, "--name", "web-2", "--tag", "Team=infra", "--deregistration-protection=with-cooldown").Image
	fake.Advance(time.Second)
	h.publishJSON(t, "--name", "web-3", "--tag", "Team=infra")
	args := []string{"aws", "gc", "--older-than", "0s", "--keep-last", "1", "--name-prefix", "web-", "--tag", "Team=infra"}
	time.Sleep(2 * time.Second) // the fake's clock is ahead
	kept := "kept " + second + " in us-east-1 (it is protected from deregistration)\n"
	for _, dry := range []bool{true, false} {
		verb := "removed"
		if dry {
			verb = "would remove"
		}
		out, code, message := h.run(nil, append(args, fmt.Sprintf("--dry-run=%v", dry))...)
		if want := verb + " " + first + " in us-east-1 (image web-1 is not among the last 1, created "; code != 0 || !strings.HasPrefix(out, kept+want) || !strings.HasSuffix(out, verb+" 1 leftovers\n") {
			t.Errorf("exit %d: %s%s", code, out, message)
		}
	}
	out, code, message := h.run(nil, append(args, "--json")...)
	var left []ami.Leftover
	if err := json.Unmarshal([]byte(out), &left); err != nil || code != 0 || len(left) != 1 || !left[0].Kept {
		t.Errorf("exit %d: %s%s", code, out, message)
	}
	for _, bad := range [][]string{{"--keep-last", "1"}, {"--keep-last", "0", "--name-prefix", "web-"}, {"--name-prefix", "web-"}, {"--tag", "a=b"}} {
		if out, code, message := h.run(nil, append([]string{"aws", "gc"}, bad...)...); code != 2 || out != "" || strings.Count(message, "\n") != 1 {
			t.Errorf("%v: exit %d: %s%s", bad, code, out, message)
		}
	}
	if _, code, _ := h.run(nil, "aws", "--name", "web-4", "--deregistration-protection=on", "machine.raw"); code != 2 {
		t.Errorf("exit %d", code)
	}
}

// TestKillDeploy kills a deployment with SIGKILL after a random number of
// requests and runs it again: each root volume is replaced once, and no instance
// of the test is left.
func TestKillDeploy(t *testing.T) {
	for i := range *kills {
		random := rand.New(rand.NewPCG(uint64(i), 2))
		fake := awstest.StartTLS(t, awstest.Knobs{Latency: time.Millisecond, Console: machineUp})
		data := content(uint64(i), 4)
		first := newHost(t, fake, content(uint64(i)+100, 4)).publishJSON(t, "--name", "machine-1").Image
		h := newHost(t, fake, data)
		second := h.publishJSON(t, "--name", "machine-2")
		ids := []string{runInstance(t, fake, first), runInstance(t, fake, first)}
		args := []string{"aws", "deploy", second.Image, "--launch", "--instance", strings.Join(ids, ","), "--ssm-parameter", "/machine", "--json"}
		limit := 1 + random.Int64N(55)
		cmd := h.command(args...)
		var requests atomic.Int64
		knobs := awstest.Knobs{Latency: time.Millisecond, Console: machineUp, Settle: 50 * time.Millisecond}
		faulty := knobs
		faulty.Faults = func(awstest.Request) awstest.Fault {
			if requests.Add(1) == limit {
				cmd.Process.Kill()
			}
			return awstest.None
		}
		fake.SetKnobs(faulty)
		err := cmd.Run()
		fake.SetKnobs(knobs)
		out, code, message := h.run(nil, args...)
		var d ami.Deployment
		if jsonErr := json.Unmarshal([]byte(out), &d); jsonErr != nil || code != 0 || len(d.Instances) != 2 || d.Parameter == "" {
			t.Errorf("kill %d at request %d (%v): exit %d: %s%s", i, limit, err, code, out, message)
		}
		for _, instance := range fake.Instances() {
			switch test := instance.Tags[ami.TagLaunch] != ""; {
			case test && instance.State != "shutting-down" && instance.State != "terminated":
				t.Errorf("kill %d at request %d: left %+v", i, limit, instance)
			case !test && (instance.Snapshot != second.Snapshot || len(instance.KeptVolumes) != 1):
				t.Errorf("kill %d at request %d: %+v", i, limit, instance)
			}
		}
	}
}

// Every failure has the documented exit status and one line on standard error
// besides the progress, from each command.
func TestExitCodesOfCommands(t *testing.T) {
	fake := awstest.StartTLS(t, awstest.Knobs{Console: machineUp})
	h := newHost(t, fake, content(1, 2))
	image := h.publishJSON(t, "--name", "machine-1")
	id := runInstance(t, fake, image.Image)
	other := h.publishJSON(t, "--name", "machine-2", "--volume-size", "2").Image
	quiet := func(k awstest.Knobs) awstest.Knobs { k.Console = machineUp; return k }
	denied := func(operations ...string) awstest.Knobs { return quiet(awstest.Knobs{Denied: operations}) }
	var (
		publish = []string{"aws", "--name", "machine-3", "--volume-size", "3", "--launch", "machine.raw"}
		deploy  = []string{"aws", "deploy", other, "--instance", id, "--launch"}
		verify  = []string{"aws", "verify", image.Image, "machine.raw"}
		gc      = []string{"aws", "gc", "--keep-last", "1", "--name-prefix", "machine-", "--older-than", "0s"}
	)
	with := func(args []string, more ...string) []string { return slices.Concat(args, more) }
	expired := quiet(awstest.Knobs{SessionToken: "new"})
	for _, test := range []struct {
		name  string
		args  []string
		knobs awstest.Knobs
		env   string
		code  int
	}{
		{"publish, credentials", publish, expired, "", 4},
		{"deploy, credentials", deploy, expired, "", 4},
		{"verify, credentials", verify, expired, "", 4},
		{"gc, credentials", gc, expired, "", 4},
		{"publish, permission", publish, denied("ebs:StartSnapshot"), "", 5},
		{"publish, permission to test", publish, denied("ec2:RunInstances"), "", 5},
		{"publish, permission to share", with(publish, "--share", "210987654321"), denied("ec2:ModifyImageAttribute"), "", 5},
		{"publish, public access", with(publish, "--share", "all"), quiet(awstest.Knobs{BlockPublicAccess: true}), "", 5},
		{"deploy, permission", deploy, denied("ec2:CreateReplaceRootVolumeTask"), "", 5},
		{"deploy, permission to test", deploy, denied("ec2:RunInstances"), "", 5},
		{"verify, permission", verify, denied("ebs:ListSnapshotBlocks"), "", 5},
		{"gc, permission", gc, denied("ec2:DescribeImages"), "", 5},
		{"gc, permission to read users", gc, denied("ec2:DescribeLaunchTemplates"), "", 5},
		{"publish, name", []string{"aws", "--name", "machine-1", "--volume-size", "3", "machine.raw"}, quiet(awstest.Knobs{}), "", 6},
		{"publish, quota", publish, quiet(awstest.Knobs{Images: 2}), "", 7},
		{"publish, quota of instances", publish, quiet(awstest.Knobs{Instances: 1}), "", 7},
		{"deploy, quota of instances", deploy, quiet(awstest.Knobs{Instances: 1}), "", 7},
		{"publish, region", with(publish, "--region", "af-south-1"), quiet(awstest.Knobs{NotOptedIn: []string{"af-south-1"}}), "", 4},
		{"deploy, no region", deploy, quiet(awstest.Knobs{}), "AWS_REGION=", 8},
		{"gc, no region", gc, quiet(awstest.Knobs{}), "AWS_REGION=", 8},
		{"deploy, no image", []string{"aws", "deploy", "ami-00000000000000000", "--launch"}, quiet(awstest.Knobs{}), "", 2},
		{"verify, no image", []string{"aws", "verify", "ami-00000000000000000", "machine.raw"}, quiet(awstest.Knobs{}), "", 2},
		{"verify, no snapshot", []string{"aws", "verify", "snap-00000000000000000", "machine.raw"}, quiet(awstest.Knobs{}), "", 1},
		{"verify, no disk", []string{"aws", "verify", image.Image, "missing.raw"}, quiet(awstest.Knobs{}), "", 3},
		{"publish, not up", with(publish, "--wait-timeout", "300ms", "--launch-console", "never"), quiet(awstest.Knobs{}), "", 3},
		{"deploy, not up", with(deploy, "--wait-timeout", "300ms", "--launch-console", "never"), quiet(awstest.Knobs{}), "", 3},
		{"deploy, task fails", []string{"aws", "deploy", other, "--instance", id}, quiet(awstest.Knobs{ReplaceFailure: "failed"}), "", 1},
		{"publish, endpoint", with(publish, "--endpoint-url", "https://no-such-host.invalid"), quiet(awstest.Knobs{}), "", 8},
		{"deploy, certificate", deploy, quiet(awstest.Knobs{}), "AWS_CA_BUNDLE=", 1},
		{"gc, certificate", gc, quiet(awstest.Knobs{}), "AWS_CA_BUNDLE=", 1},
		{"publish", publish, quiet(awstest.Knobs{}), "", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			fake.SetKnobs(test.knobs)
			cmd := h.command(test.args...)
			if strings.HasSuffix(test.name, ", credentials") {
				cmd.Env = append(cmd.Env, "AWS_SESSION_TOKEN=old")
			}
			if test.env != "" {
				cmd.Env = append(cmd.Env, test.env)
			}
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			cmd.Run()
			errors := 0
			for line := range strings.Lines(stderr.String()) {
				switch {
				case strings.HasPrefix(line, "slipway-publish: warning: "), strings.HasPrefix(line, "us-east-1: "), strings.HasPrefix(line, "af-south-1: "):
				case strings.HasPrefix(line, "slipway-publish: "):
					errors++
				default:
					t.Errorf("not a line of slipway-publish: %q", line)
				}
			}
			if code := cmd.ProcessState.ExitCode(); code != test.code || errors != min(test.code, 1) {
				t.Errorf("exit %d, want %d: %s", code, test.code, stderr.String())
			}
		})
	}
	for _, i := range fake.Instances() {
		if i.ID != id && i.State != "shutting-down" && i.State != "terminated" {
			t.Errorf("left %+v", i)
		}
	}
}
