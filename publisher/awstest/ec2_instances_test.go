package awstest_test

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/slipway-build/slipway/publisher/awstest"
)

func runInput(image string) *ec2.RunInstancesInput {
	return &ec2.RunInstancesInput{
		ImageId: &image, InstanceType: ec2types.InstanceTypeT3Micro, MinCount: aws.Int32(1), MaxCount: aws.Int32(1), ClientToken: aws.String("once"),
		TagSpecifications: []ec2types.TagSpecification{{
			ResourceType: ec2types.ResourceTypeInstance, Tags: []ec2types.Tag{{Key: aws.String("Name"), Value: aws.String("smoke")}},
		}},
	}
}

// An instance starts, passes its status checks, prints and terminates, and the
// SDK's waiters follow.
func TestInstance(t *testing.T) {
	c := start(t, awstest.Knobs{})
	image := *must(c.ec2.RegisterImage(c.ctx, imageInput("machine", c.snapshot(nil, nil)))).ImageId
	c.fake.SetKnobs(awstest.Knobs{Settle: time.Minute, InstanceAddress: "127.0.0.1", Console: func(i awstest.InstanceInfo) []byte {
		return []byte(i.ID + " login: ")
	}})
	run := must(c.ec2.RunInstances(c.ctx, runInput(image)))
	id := *run.Instances[0].InstanceId
	if again := must(c.ec2.RunInstances(c.ctx, runInput(image))); *again.Instances[0].InstanceId != id {
		t.Error("the same token started another instance")
	}
	state := func() ec2types.InstanceStateName {
		out := must(c.ec2.DescribeInstances(c.ctx, &ec2.DescribeInstancesInput{Filters: []ec2types.Filter{{Name: aws.String("tag:Name"), Values: []string{"smoke"}}}}))
		return out.Reservations[0].Instances[0].State.Name
	}
	status := func() ec2types.SummaryStatus {
		out := must(c.ec2.DescribeInstanceStatus(c.ctx, &ec2.DescribeInstanceStatusInput{InstanceIds: []string{id}, IncludeAllInstances: aws.Bool(true)}))
		return out.InstanceStatuses[0].InstanceStatus.Status
	}
	for _, want := range []string{"pending not-applicable", "running initializing", "running ok"} {
		if got := string(state()) + " " + string(status()); got != want {
			t.Errorf("%s, not %s", got, want)
		}
		c.fake.Advance(time.Minute)
	}
	describe := &ec2.DescribeInstancesInput{InstanceIds: []string{id}}
	running := must(ec2.NewInstanceRunningWaiter(c.ec2).WaitForOutput(c.ctx, describe, time.Second)).Reservations[0].Instances[0]
	if *running.PublicIpAddress != "127.0.0.1" || *running.BlockDeviceMappings[0].DeviceName != "/dev/xvda" {
		t.Errorf("the instance is %+v", running)
	}
	if err := ec2.NewInstanceStatusOkWaiter(c.ec2).Wait(c.ctx, &ec2.DescribeInstanceStatusInput{InstanceIds: []string{id}}, time.Second); err != nil {
		t.Error(err)
	}
	console := must(c.ec2.GetConsoleOutput(c.ctx, &ec2.GetConsoleOutputInput{InstanceId: &id}))
	if text := string(must(base64.StdEncoding.DecodeString(*console.Output))); text != id+" login: " {
		t.Errorf("the console is %q", text)
	}
	must(c.ec2.TerminateInstances(c.ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{id}}))
	if got := state(); got != "shutting-down" {
		t.Errorf("terminating: %s", got)
	}
	c.fake.Advance(time.Minute)
	if err := ec2.NewInstanceTerminatedWaiter(c.ec2).Wait(c.ctx, describe, time.Second); err != nil {
		t.Error(err)
	}
	if _, err := c.ec2.RunInstances(c.ctx, runInput(image)); code(err) != "IdempotentInstanceTerminated" {
		t.Errorf("the token of a terminated instance: %v", err)
	}
	if volumes := must(c.ec2.DescribeVolumes(c.ctx, &ec2.DescribeVolumesInput{})).Volumes; len(volumes) != 0 {
		t.Errorf("the instance left the volumes %+v", volumes)
	}
	c.fake.SetKnobs(awstest.Knobs{Instances: 1})
	two := runInput(image)
	two.MaxCount, two.ClientToken = aws.Int32(2), nil
	if _, err := c.ec2.RunInstances(c.ctx, two); code(err) != "VcpuLimitExceeded" {
		t.Errorf("two instances with a quota of one: %v", err)
	}
	c.clean()

	before := len(c.fake.Violations())
	arm := runInput(image)
	arm.InstanceType, arm.ClientToken = "t4g.micro", nil
	if _, err := c.ec2.RunInstances(c.ctx, arm); code(err) != "InvalidParameterValue" || len(c.fake.Violations()) != before+1 {
		t.Errorf("an x86_64 image on a t4g.micro: %v", err)
	}
	if _, err := c.ec2.RunInstances(c.ctx, runInput("ami-00000000000000000")); code(err) != "IdempotentParameterMismatch" {
		t.Errorf("the same token for another image: %v", err)
	}
}

func TestReplaceRootVolume(t *testing.T) {
	c := start(t, awstest.Knobs{})
	register := func(name string, change func(*ec2.RegisterImageInput)) (image, snapshot string) {
		snapshot = c.snapshot(map[int32][]byte{0: noise(byte(len(name)), awstest.BlockSize)}, nil)
		in := imageInput(name, snapshot)
		if change != nil {
			change(in)
		}
		return *must(c.ec2.RegisterImage(c.ctx, in)).ImageId, snapshot
	}
	first, _ := register("one", nil)
	second, snapshot := register("second", nil)
	bios, _ := register("bios machine", func(in *ec2.RegisterImageInput) { in.BootMode = ec2types.BootModeValuesLegacyBios })
	id := *must(c.ec2.RunInstances(c.ctx, runInput(first))).Instances[0].InstanceId
	c.fake.SetKnobs(awstest.Knobs{Settle: time.Minute})

	in := &ec2.CreateReplaceRootVolumeTaskInput{InstanceId: &id, ImageId: &second, ClientToken: aws.String("replace")}
	task := *must(c.ec2.CreateReplaceRootVolumeTask(c.ctx, in)).ReplaceRootVolumeTask.ReplaceRootVolumeTaskId
	if again := *must(c.ec2.CreateReplaceRootVolumeTask(c.ctx, in)).ReplaceRootVolumeTask.ReplaceRootVolumeTaskId; again != task {
		t.Errorf("the same token created %s and %s", task, again)
	}
	if _, err := c.ec2.CreateReplaceRootVolumeTask(c.ctx, &ec2.CreateReplaceRootVolumeTaskInput{InstanceId: &id}); code(err) != "IncorrectInstanceState" {
		t.Errorf("a second task at the same time: %v", err)
	}
	old := c.fake.Instances()[0]
	for _, want := range []ec2types.ReplaceRootVolumeTaskState{"pending", "in-progress", "succeeded"} {
		out := must(c.ec2.DescribeReplaceRootVolumeTasks(c.ctx, &ec2.DescribeReplaceRootVolumeTasksInput{ReplaceRootVolumeTaskIds: []string{task}}))
		if got := out.ReplaceRootVolumeTasks[0].TaskState; got != want {
			t.Errorf("the task is %s, not %s", got, want)
		}
		c.fake.Advance(30 * time.Second)
	}
	got := c.fake.Instances()[0]
	if got.Image != second || got.Snapshot != snapshot || got.Volume == old.Volume || !slices.Equal(got.KeptVolumes, []string{old.Volume}) {
		t.Errorf("the instance is %+v", got)
	}
	if _, err := c.fake.Disk(awstest.Region, got.Snapshot); err != nil {
		t.Error(err)
	}
	c.fake.SetKnobs(awstest.Knobs{})
	must(c.ec2.CreateReplaceRootVolumeTask(c.ctx, &ec2.CreateReplaceRootVolumeTaskInput{InstanceId: &id, DeleteReplacedRootVolume: aws.Bool(true)}))
	if got := c.fake.Instances()[0]; got.Snapshot != snapshot || len(got.KeptVolumes) != 1 {
		t.Errorf("after restoring the launch state: %+v", got)
	}
	c.clean()
	if _, err := c.ec2.CreateReplaceRootVolumeTask(c.ctx, &ec2.CreateReplaceRootVolumeTaskInput{InstanceId: &id, ImageId: &bios}); code(err) != "InvalidParameterValue" {
		t.Errorf("an image with another boot mode: %v", err)
	}
	c.violated("does not match the instance")
	must(c.ec2.TerminateInstances(c.ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{id}}))
	if _, err := c.ec2.CreateReplaceRootVolumeTask(c.ctx, &ec2.CreateReplaceRootVolumeTaskInput{InstanceId: &id}); code(err) != "IncorrectInstanceState" {
		t.Errorf("a terminated instance: %v", err)
	}
}

// A task can fail with or without the old root volume, and the replaced volumes
// are kept until they are deleted.
func TestReplaceRootVolumeFails(t *testing.T) {
	c := start(t, awstest.Knobs{})
	image := *must(c.ec2.RegisterImage(c.ctx, imageInput("machine", c.snapshot(nil, nil)))).ImageId
	id := *must(c.ec2.RunInstances(c.ctx, runInput(image))).Instances[0].InstanceId
	root := c.fake.Instances()[0].Volume
	attached := func() (ids []string) {
		for _, v := range must(c.ec2.DescribeVolumes(c.ctx, &ec2.DescribeVolumesInput{Filters: []ec2types.Filter{{Name: aws.String("attachment.instance-id"), Values: []string{id}}}})).Volumes {
			ids = append(ids, *v.VolumeId)
		}
		return ids
	}
	if got := attached(); !slices.Equal(got, []string{root}) {
		t.Errorf("the instance has the volumes %v, not %s", got, root)
	}
	for _, test := range []struct {
		end, on string
		want    []string
	}{
		{"failed", "failing", []string{root}},
		{"failed-detached", "failing-detached", nil},
	} {
		c.fake.SetKnobs(awstest.Knobs{Settle: time.Minute, ReplaceFailure: test.end})
		task := *must(c.ec2.CreateReplaceRootVolumeTask(c.ctx, &ec2.CreateReplaceRootVolumeTaskInput{InstanceId: &id, ImageId: &image})).ReplaceRootVolumeTask.ReplaceRootVolumeTaskId
		for _, want := range []string{"pending", test.on, test.end} {
			out := must(c.ec2.DescribeReplaceRootVolumeTasks(c.ctx, &ec2.DescribeReplaceRootVolumeTasksInput{ReplaceRootVolumeTaskIds: []string{task}}))
			if got := out.ReplaceRootVolumeTasks[0].TaskState; string(got) != want {
				t.Errorf("the task is %s, not %s", got, want)
			}
			c.fake.Advance(30 * time.Second)
		}
		if got := attached(); !slices.Equal(got, test.want) {
			t.Errorf("%s: the instance has the volumes %v, not %v", test.end, got, test.want)
		}
	}
	c.fake.SetKnobs(awstest.Knobs{})
	if _, err := c.ec2.CreateReplaceRootVolumeTask(c.ctx, &ec2.CreateReplaceRootVolumeTaskInput{InstanceId: &id}); code(err) != "IncorrectInstanceState" {
		t.Errorf("an instance without a root volume: %v", err)
	}
	must(c.ec2.DeleteVolume(c.ctx, &ec2.DeleteVolumeInput{VolumeId: &root}))
	if _, err := c.ec2.DeleteVolume(c.ctx, &ec2.DeleteVolumeInput{VolumeId: &root}); code(err) != "InvalidVolume.NotFound" {
		t.Errorf("a volume that was deleted: %v", err)
	}
	other := runInput(image)
	other.ClientToken = nil
	must(c.ec2.RunInstances(c.ctx, other))
	inUse := must(c.ec2.DescribeVolumes(c.ctx, &ec2.DescribeVolumesInput{})).Volumes[0].VolumeId
	if _, err := c.ec2.DeleteVolume(c.ctx, &ec2.DeleteVolumeInput{VolumeId: inUse}); code(err) != "VolumeInUse" {
		t.Errorf("an attached volume: %v", err)
	}
	c.clean()
}

func TestDescribeTags(t *testing.T) {
	c := start(t, awstest.Knobs{})
	image := *must(c.ec2.RegisterImage(c.ctx, imageInput("machine", c.snapshot(nil, nil)))).ImageId
	id := *must(c.ec2.RunInstances(c.ctx, runInput(image))).Instances[0].InstanceId
	must(c.ec2.CreateTags(c.ctx, &ec2.CreateTagsInput{Resources: []string{id}, Tags: []ec2types.Tag{{Key: aws.String("a"), Value: aws.String("b")}}}))
	list := func(filters ...string) string {
		in := &ec2.DescribeTagsInput{}
		for pair := range slices.Chunk(filters, 2) {
			in.Filters = append(in.Filters, ec2types.Filter{Name: &pair[0], Values: []string{pair[1]}})
		}
		var out []string
		for _, tag := range must(c.ec2.DescribeTags(c.ctx, in)).Tags {
			out = append(out, string(tag.ResourceType)+" "+*tag.Key+"="+*tag.Value)
		}
		return strings.Join(out, ", ")
	}
	for _, test := range []struct {
		filters []string
		want    string
	}{
		{nil, "image Name=machine, instance Name=smoke, instance a=b"},
		{[]string{"resource-id", id, "key", "a"}, "instance a=b"},
		{[]string{"resource-type", "image"}, "image Name=machine"},
		{[]string{"tag:Name", "s*"}, "instance Name=smoke"},
		{[]string{"value", "nothing"}, ""},
	} {
		if got := list(test.filters...); got != test.want {
			t.Errorf("%v: %s, not %s", test.filters, got, test.want)
		}
	}
	c.clean()
}
