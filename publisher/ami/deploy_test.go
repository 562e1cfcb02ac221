package ami_test

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/slipway-build/slipway/publisher/ami"
	"github.com/slipway-build/slipway/publisher/awstest"
)

// up is the console output of a machine that is up.
func up(awstest.InstanceInfo) []byte {
	return []byte("Linux version 6\r\n[   1.00] machine is up, services started: 2\r\n")
}

// listener returns a port on loopback that accepts connections.
func listener(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().(*net.TCPAddr).Port
}

// runInstance starts an instance of an image, as a user does.
func runInstance(t *testing.T, fake *awstest.Server, image string) string {
	t.Helper()
	out, err := ec2.NewFromConfig(configure(t, fake)).RunInstances(t.Context(), &ec2.RunInstancesInput{
		ImageId: &image, InstanceType: types.InstanceTypeT3Micro, MinCount: aws.Int32(1), MaxCount: aws.Int32(1),
	})
	if err != nil {
		t.Fatal(err)
	}
	return *out.Instances[0].InstanceId
}

// running returns the instances that test images and are not terminated.
func running(fake *awstest.Server) (left []awstest.InstanceInfo) {
	for _, i := range fake.Instances() {
		if i.Tags[ami.TagLaunch] != "" && i.State != "shutting-down" && i.State != "terminated" {
			left = append(left, i)
		}
	}
	return left
}

func deploy(ctx context.Context, t *testing.T, fake *awstest.Server, image string, o ami.DeployOptions) (*ami.Deployment, error) {
	t.Helper()
	if o.State == "" {
		o.State = t.TempDir()
	}
	if o.Timeout == 0 {
		o.Timeout = 2 * time.Second
	}
	return ami.Deploy(ctx, configure(t, fake), image, o)
}

// A roll-out tests the image, replaces the root volumes one after the other and
// sets the parameter. Repeating it changes nothing.
func TestDeploy(t *testing.T) {
	fake := start(t, awstest.Knobs{Console: up, InstanceAddress: "127.0.0.1"})
	data := content(2, 5)
	first := mustPublish(t, fake, write(t, content(1, 5)), ami.Options{Name: "machine-1"}).Images[0].Image
	second := mustPublish(t, fake, write(t, data), ami.Options{Name: "machine-2"}).Images[0]
	ids := []string{runInstance(t, fake, first), runInstance(t, fake, first)}
	knobs := fake.Knobs()
	knobs.Settle = 300 * time.Millisecond
	fake.SetKnobs(knobs)

	o := ami.DeployOptions{Instances: append(ids, ids[0]), Launch: new(ami.Launch), SSMParameter: "/machine", Port: listener(t), Limit: 10 * time.Second}
	dry := o
	dry.DryRun = true
	if _, err := deploy(t.Context(), t, fake, second.Image, dry); err != nil || len(fake.Instances()) != 2 {
		t.Errorf("dry run: %v, instances %v", err, fake.Instances())
	}
	result, err := deploy(t.Context(), t, fake, second.Image, o)
	if err != nil {
		t.Fatal(err)
	}
	if !result.Tested || result.Parameter != "/machine" || result.Snapshot != second.Snapshot || len(result.Instances) != 2 {
		t.Errorf("the result is %+v", result)
	}
	for n, i := range fake.Instances() {
		if slices.Contains(ids, i.ID) {
			replaced := result.Instances[slices.Index(ids, i.ID)]
			if i.Snapshot != second.Snapshot || replaced.Volume != i.Volume || !slices.Equal(i.KeptVolumes, []string{replaced.OldVolume}) {
				t.Errorf("instance %d is %+v, the result %+v", n, i, replaced)
			}
			equal(t, fake, home, i.Snapshot, data)
		} else if i.State != "terminated" && i.State != "shutting-down" {
			t.Errorf("the test left %+v", i)
		}
	}
	o.Launch = nil
	again, err := deploy(t.Context(), t, fake, second.Image, o)
	if err != nil || !again.Instances[0].Existing || again.Instances[1].Task != "" {
		t.Errorf("again: %+v, %v", again, err)
	}
	// Back to the first image, without the volumes of the second.
	o.DeleteOld = true
	back, err := deploy(t.Context(), t, fake, first, o)
	if err != nil || back.Instances[0].OldVolume != "" {
		t.Errorf("back: %+v, %v", back, err)
	}
	if n := fake.Count("ec2:CreateReplaceRootVolumeTask"); n != 8+4 { // dry runs and tasks
		t.Errorf("%d calls", n)
	}
}

func TestDeployRefusals(t *testing.T) {
	fake := start(t, awstest.Knobs{Console: up})
	image := mustPublish(t, fake, write(t, content(1, 2)), ami.Options{Name: "machine-1"}).Images[0].Image
	uefi := ami.Options{Name: "machine-2"}
	uefi.Register.BootMode = types.BootModeValuesLegacyBios
	id := runInstance(t, fake, image)
	gone := runInstance(t, fake, image)
	if _, err := ec2.NewFromConfig(configure(t, fake)).TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{gone}}); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		image  string
		o      ami.DeployOptions
		denied string
		want   string
		class  ami.Class
	}{
		{image, ami.DeployOptions{}, "", "nothing to do", ami.ClassUsage},
		{"snap-1", ami.DeployOptions{Instances: []string{id}}, "", "not the ID of an AMI", ami.ClassUsage},
		{image, ami.DeployOptions{Instances: []string{"web"}}, "", "not the ID of an instance", ami.ClassUsage},
		{image, ami.DeployOptions{Instances: []string{id}, Port: 70000}, "", "invalid port", ami.ClassUsage},
		{image, ami.DeployOptions{Launch: &ami.Launch{Console: "("}}, "", "invalid expression", ami.ClassUsage},
		{"ami-00000000000000000", ami.DeployOptions{Instances: []string{id}}, "", "there is no AMI", ami.ClassUsage},
		{image, ami.DeployOptions{Instances: []string{"i-00000000000000000"}}, "", "there is no instance", ami.ClassUsage},
		{image, ami.DeployOptions{Instances: []string{gone}}, "", "not running", ami.ClassUsage},
		{image, ami.DeployOptions{Instances: []string{id}}, "ec2:CreateReplaceRootVolumeTask", "check the replacement", ami.ClassPermission},
		{image, ami.DeployOptions{Launch: new(ami.Launch)}, "ec2:RunInstances", "check the start of an instance", ami.ClassPermission},
		{image, ami.DeployOptions{SSMParameter: "/machine"}, "ssm:GetParameter", "read the parameter", ami.ClassPermission},
	} {
		fake.SetKnobs(awstest.Knobs{Console: up, Denied: []string{test.denied}})
		_, err := deploy(t.Context(), t, fake, test.image, test.o)
		if err == nil || !strings.Contains(err.Error(), test.want) || ami.ClassOf(err) != test.class {
			t.Errorf("got %v, want class %d and %q", err, test.class, test.want)
		}
	}
	if n := len(fake.Instances()); n != 2 {
		t.Errorf("%d instances, want 2", n)
	}
}

// A task that fails is an error that says what became of the root volume, and a
// later run makes a new task.
func TestDeployTaskFails(t *testing.T) {
	fake := start(t, awstest.Knobs{})
	first := mustPublish(t, fake, write(t, content(1, 2)), ami.Options{Name: "machine-1"}).Images[0].Image
	second := mustPublish(t, fake, write(t, content(2, 2)), ami.Options{Name: "machine-2"}).Images[0].Image
	o := ami.DeployOptions{Instances: []string{runInstance(t, fake, first)}}
	fake.SetKnobs(awstest.Knobs{ReplaceFailure: "failed"})
	if _, err := deploy(t.Context(), t, fake, second, o); err == nil || !strings.Contains(err.Error(), "keeps its root volume vol-") {
		t.Errorf("got %v", err)
	}
	fake.SetKnobs(awstest.Knobs{})
	if _, err := deploy(t.Context(), t, fake, second, o); err != nil {
		t.Errorf("after a task that failed: %v", err)
	}
	fake.SetKnobs(awstest.Knobs{ReplaceFailure: "failed-detached"})
	if _, err := deploy(t.Context(), t, fake, first, o); err == nil || !strings.Contains(err.Error(), "has no root volume any more; stop the instance and attach vol-") {
		t.Errorf("got %v", err)
	}
	if _, err := deploy(t.Context(), t, fake, first, o); err == nil || !strings.Contains(err.Error(), "has no EBS volume as its root device") {
		t.Errorf("got %v", err)
	}
}

// A run that is interrupted while a task is active says so, and the next run
// waits for the same task.
func TestDeployInterrupted(t *testing.T) {
	fake := start(t, awstest.Knobs{})
	first := mustPublish(t, fake, write(t, content(1, 2)), ami.Options{Name: "machine-1"}).Images[0].Image
	second := mustPublish(t, fake, write(t, content(2, 2)), ami.Options{Name: "machine-2"}).Images[0].Image
	id := runInstance(t, fake, first)
	ctx, cancel := context.WithCancel(t.Context())
	fake.SetKnobs(awstest.Knobs{Settle: time.Minute, Faults: func(r awstest.Request) awstest.Fault {
		if r.Operation == "DescribeReplaceRootVolumeTasks" && strings.HasPrefix(r.Resource, "replacevol-") {
			cancel()
		}
		return awstest.None
	}})
	o := ami.DeployOptions{Instances: []string{id}}
	_, err := deploy(ctx, t, fake, second, o)
	if ami.ClassOf(err) != ami.ClassInterrupted || !strings.Contains(err.Error(), "goes on: run the same command again") {
		t.Errorf("got %v", err)
	}
	other := mustPublish(t, fake, write(t, content(1, 2)), ami.Options{Name: "machine-1"}).Images[0].Image
	fake.SetKnobs(awstest.Knobs{Settle: time.Minute})
	if _, err := deploy(t.Context(), t, fake, other, o); err == nil || !strings.Contains(err.Error(), "is replacing the root volume of "+id+" with "+second) {
		t.Errorf("another image: %v", err)
	}
	fake.Advance(time.Minute)
	fake.SetKnobs(awstest.Knobs{})
	if result, err := deploy(t.Context(), t, fake, second, o); err != nil || len(result.Instances) != 1 {
		t.Errorf("got %+v, %v", result, err)
	}
	if n := fake.Count("ec2:CreateReplaceRootVolumeTask"); n != 4 { // three dry runs
		t.Errorf("%d calls", n)
	}
}

// An image is shared and its parameter is set only after an instance of it was
// up. Whatever fails, no instance is left, and neither is the image.
func TestPublishLaunch(t *testing.T) {
	for _, test := range []struct {
		name    string
		console string
		knobs   awstest.Knobs
		launch  ami.Launch
		want    string
		class   ami.Class
	}{
		{name: "up", console: "machine is up, services started: 1"},
		{name: "login", console: "\r\n\r\nslipway login: "},
		{name: "own line", console: "ready to serve", launch: ami.Launch{Console: "ready to [a-z]+"}},
		{name: "nothing", launch: ami.Launch{Limit: 300 * time.Millisecond}, want: `its console has not printed "machine is up|login:"`, class: ami.ClassDisk},
		{name: "panic", console: "x\nKernel panic - not syncing: VFS: Unable to mount root fs\n", want: "does not boot: \"Kernel panic - not syncing: VFS: Unable to mount root fs\"", class: ami.ClassDisk},
		{name: "impaired", console: "login:", knobs: awstest.Knobs{Impaired: true}, launch: ami.Launch{Limit: 300 * time.Millisecond}, want: `"impaired" (instance)`, class: ami.ClassDisk},
		{name: "port", console: "login:", knobs: awstest.Knobs{InstanceAddress: "127.0.0.1"}, launch: ami.Launch{Port: 1, Limit: 300 * time.Millisecond}, want: "port 1: ", class: ami.ClassDisk},
		{name: "no address", console: "login:", launch: ami.Launch{Port: 22, Limit: 300 * time.Millisecond}, want: "port 22: it has no address", class: ami.ClassDisk},
		{name: "console denied", knobs: awstest.Knobs{Denied: []string{"ec2:GetConsoleOutput"}}, want: "read the console", class: ami.ClassPermission},
		{name: "quota", knobs: awstest.Knobs{Instances: 1}, want: "VcpuLimitExceeded", class: ami.ClassQuota},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			knobs := test.knobs
			knobs.Console = func(awstest.InstanceInfo) []byte { return []byte(test.console) }
			fake := start(t, knobs)
			if knobs.Instances == 1 {
				runInstance(t, fake, mustPublish(t, fake, write(t, content(2, 2)), ami.Options{Name: "other"}).Images[0].Image)
			}
			before := len(fake.Snapshots())
			o := ami.Options{Share: []string{"210987654321"}, SSMParameter: "/machine", Launch: &test.launch}
			result, err := publish(t.Context(), t, fake, write(t, content(1, 5)), o)
			if left := running(fake); len(left) > 0 {
				t.Errorf("instances left: %+v", left)
			}
			if test.want == "" {
				if err != nil || !result.Images[0].Tested {
					t.Errorf("got %+v, %v", result, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || ami.ClassOf(err) != test.class {
				t.Errorf("got %v, want class %d and %q", err, test.class, test.want)
			}
			if n := fake.Count("ec2:ModifyImageAttribute") + fake.Count("ssm:PutParameter"); n > 0 || len(fake.Snapshots()) != before {
				t.Errorf("%d changes of permissions and parameters, snapshots %v", n, fake.Snapshots())
			}
		})
	}
}

// The response to the start of an instance can be lost, the run be interrupted
// at any request, and the instance be terminated by someone else.
func TestLaunchInterrupted(t *testing.T) {
	for limit := 1; limit <= 12; limit++ {
		fake := start(t, awstest.Knobs{Console: up})
		image := mustPublish(t, fake, write(t, content(1, 2)), ami.Options{Name: "machine-1"}).Images[0].Image
		ctx, cancel := context.WithCancel(t.Context())
		requests := 0
		fake.SetKnobs(awstest.Knobs{Console: up, Settle: 20 * time.Millisecond, Grace: 50 * time.Millisecond, Faults: func(r awstest.Request) awstest.Fault {
			if requests++; requests == limit {
				cancel()
			}
			if r.Operation == "RunInstances" && r.Attempt == 2 { // the first is a dry run
				return awstest.LostReset
			}
			return awstest.None
		}})
		_, err := deploy(ctx, t, fake, image, ami.DeployOptions{Launch: new(ami.Launch)})
		if left := running(fake); len(left) > 0 {
			t.Errorf("canceled at request %d: %v: instances left: %+v", limit, err, left)
		}
		cancel()
	}
}

// A run after one that was killed tests with the same instance, or with another
// one if that was terminated. Without a test, it terminates the instance.
func TestLaunchAfterKill(t *testing.T) {
	for _, then := range []string{"continue", "terminated", "no test"} {
		t.Run(then, func(t *testing.T) {
			t.Parallel()
			fake := start(t, awstest.Knobs{Console: up})
			d, o := write(t, content(1, 2)), ami.Options{Launch: new(ami.Launch), State: t.TempDir()}
			// The first run cannot terminate its instance, as if it was killed.
			ctx, cancel := context.WithCancel(t.Context())
			fake.SetKnobs(awstest.Knobs{Console: up, Denied: []string{"ec2:TerminateInstances"}, Faults: func(r awstest.Request) awstest.Fault {
				if r.Operation == "GetConsoleOutput" {
					cancel()
				}
				return awstest.None
			}})
			killed := o
			killed.Keep = true
			if _, err := publish(ctx, t, fake, d, killed); err == nil || !strings.Contains(err.Error(), "terminate it with slipway-publish aws gc") {
				t.Fatalf("got %v", err)
			}
			left := running(fake)
			if len(left) != 1 {
				t.Fatalf("instances left: %v", left)
			}
			fake.SetKnobs(awstest.Knobs{Console: up})
			want := 1
			switch then {
			case "terminated":
				want = 2
				if _, err := ec2.NewFromConfig(configure(t, fake)).TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{left[0].ID}}); err != nil {
					t.Fatal(err)
				}
			case "no test":
				o.Launch = nil
			}
			result, err := publish(t.Context(), t, fake, d, o)
			if err != nil || result.Images[0].Tested != (o.Launch != nil) {
				t.Errorf("got %+v, %v", result, err)
			}
			if n := len(fake.Instances()); n != want || len(running(fake)) > 0 {
				t.Errorf("%d instances, running %v", n, running(fake))
			}
		})
	}
}

// gc terminates instances that test an image, and no others.
func TestGCInstances(t *testing.T) {
	fake := start(t, awstest.Knobs{})
	image := mustPublish(t, fake, write(t, content(1, 2)), ami.Options{Name: "machine-1"}).Images[0].Image
	keep, left := runInstance(t, fake, image), runInstance(t, fake, image)
	client := ec2.NewFromConfig(configure(t, fake))
	if _, err := client.CreateTags(t.Context(), &ec2.CreateTagsInput{Resources: []string{left}, Tags: []types.Tag{{Key: aws.String(ami.TagLaunch), Value: aws.String("1")}}}); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		o    ami.GCOptions
		want []string
	}{
		{ami.GCOptions{OlderThan: time.Hour}, nil},
		{ami.GCOptions{OlderThan: -time.Minute, DryRun: true}, []string{left}},
		{ami.GCOptions{OlderThan: -time.Minute}, []string{left}},
		{ami.GCOptions{OlderThan: -time.Minute}, nil},
	} {
		found, err := ami.GC(t.Context(), configure(t, fake), test.o)
		var ids []string
		for _, l := range found {
			ids = append(ids, l.ID)
		}
		if err != nil || !slices.Equal(ids, test.want) {
			t.Errorf("%+v: %v, %v; want %v", test.o, found, err, test.want)
		}
	}
	for _, i := range fake.Instances() {
		if (i.State == "running") != (i.ID == keep) {
			t.Errorf("%+v", i)
		}
	}
	fake.SetKnobs(awstest.Knobs{Denied: []string{"ec2:DescribeInstances"}})
	if _, err := ami.GC(t.Context(), configure(t, fake), ami.GCOptions{}); err != nil {
		t.Errorf("without the permission to list instances: %v", err)
	}
}
