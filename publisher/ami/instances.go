package ami

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"iter"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// instances are the instances of the account, with their volumes and the tasks
// that replace root volumes.
type instances struct {
	ec2    *ec2.Client
	caller caller
}

var isInstanceMissing = hasCode("InvalidInstanceID.NotFound")

// run starts an instance and returns its ID. The client token makes it
// idempotent. EC2 may not know the image yet.
func (i instances) run(ctx context.Context, input *ec2.RunInstancesInput) (string, error) {
	out, err := call(ctx, i.caller, i.ec2.RunInstances, input, hasCode("InvalidAMIID.NotFound"))
	if err != nil {
		return "", err
	}
	if len(out.Instances) != 1 {
		return "", fmt.Errorf("EC2 started %d instances instead of one", len(out.Instances))
	}
	return *out.Instances[0].InstanceId, nil
}

// tryRun asks EC2 whether it would accept a request, without starting an
// instance.
func (i instances) tryRun(ctx context.Context, input *ec2.RunInstancesInput) error {
	dry := *input
	dry.DryRun = aws.Bool(true)
	_, err := call(ctx, i.caller, i.ec2.RunInstances, &dry)
	return err
}

// byID returns an instance, or nil if EC2 does not show it.
func (i instances) byID(ctx context.Context, id string) (*types.Instance, error) {
	out, err := call(ctx, i.caller, i.ec2.DescribeInstances, &ec2.DescribeInstancesInput{InstanceIds: []string{id}})
	if isInstanceMissing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, reservation := range out.Reservations {
		for _, instance := range reservation.Instances {
			if aws.ToString(instance.InstanceId) == id {
				return &instance, nil
			}
		}
	}
	return nil, nil
}

func (i instances) filter(ctx context.Context, filters ...types.Filter) iter.Seq2[*ec2.DescribeInstancesOutput, error] {
	return pages(ctx, i.caller, ec2.NewDescribeInstancesPaginator(i.ec2, &ec2.DescribeInstancesInput{Filters: filters}))
}

// checks returns the results of the status checks of the system and of the
// instance, for example ok, initializing or impaired.
func (i instances) checks(ctx context.Context, id string) (system, instance types.SummaryStatus, err error) {
	out, err := call(ctx, i.caller, i.ec2.DescribeInstanceStatus, &ec2.DescribeInstanceStatusInput{InstanceIds: []string{id}})
	if isInstanceMissing(err) {
		return "", "", nil
	}
	if err != nil || len(out.InstanceStatuses) != 1 {
		return "", "", err
	}
	status := out.InstanceStatuses[0]
	if status.SystemStatus != nil {
		system = status.SystemStatus.Status
	}
	if status.InstanceStatus != nil {
		instance = status.InstanceStatus.Status
	}
	return system, instance, nil
}

// console returns the console output so far. Only instances on the Nitro system
// have the latest output; others have it some time after a start or stop.
func (i instances) console(ctx context.Context, id string) ([]byte, error) {
	input := &ec2.GetConsoleOutputInput{InstanceId: &id, Latest: aws.Bool(true)}
	out, err := call(ctx, i.caller, i.ec2.GetConsoleOutput, input)
	if isRefusal(err) && !isInstanceMissing(err) && ClassOf(err) == ClassOther {
		input.Latest = nil
		out, err = call(ctx, i.caller, i.ec2.GetConsoleOutput, input)
	}
	if isInstanceMissing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return base64.StdEncoding.DecodeString(aws.ToString(out.Output))
}

// terminate terminates an instance. The tests in transient are those of call.
func (i instances) terminate(ctx context.Context, id string, transient ...func(error) bool) error {
	_, err := call(ctx, i.caller, i.ec2.TerminateInstances, &ec2.TerminateInstancesInput{InstanceIds: []string{id}}, transient...)
	return err
}

// snapshotOf returns the snapshot that a volume was made of.
func (i instances) snapshotOf(ctx context.Context, volume string) (string, error) {
	out, err := call(ctx, i.caller, i.ec2.DescribeVolumes, &ec2.DescribeVolumesInput{VolumeIds: []string{volume}})
	if err != nil {
		return "", describe("look for "+volume, err)
	}
	if len(out.Volumes) != 1 {
		return "", fmt.Errorf("EC2 described %d volumes instead of %s", len(out.Volumes), volume)
	}
	return aws.ToString(out.Volumes[0].SnapshotId), nil
}

// replaceRoot starts a task that replaces the root volume of an instance. The
// client token makes it idempotent.
func (i instances) replaceRoot(ctx context.Context, input *ec2.CreateReplaceRootVolumeTaskInput) (*types.ReplaceRootVolumeTask, error) {
	out, err := call(ctx, i.caller, i.ec2.CreateReplaceRootVolumeTask, input)
	if err != nil {
		return nil, err
	}
	return out.ReplaceRootVolumeTask, nil
}

// tryReplaceRoot asks EC2 whether it would accept a request, without starting a
// task.
func (i instances) tryReplaceRoot(ctx context.Context, input *ec2.CreateReplaceRootVolumeTaskInput) error {
	dry := *input
	dry.DryRun = aws.Bool(true)
	_, err := call(ctx, i.caller, i.ec2.CreateReplaceRootVolumeTask, &dry)
	return err
}

// task returns a task that replaces a root volume, or nil while EC2 does not
// show it yet.
func (i instances) task(ctx context.Context, id string) (*types.ReplaceRootVolumeTask, error) {
	out, err := call(ctx, i.caller, i.ec2.DescribeReplaceRootVolumeTasks, &ec2.DescribeReplaceRootVolumeTasksInput{ReplaceRootVolumeTaskIds: []string{id}})
	if hasCode("InvalidReplaceRootVolumeTaskId.NotFound")(err) {
		return nil, nil
	}
	if err != nil || len(out.ReplaceRootVolumeTasks) != 1 {
		return nil, err
	}
	return &out.ReplaceRootVolumeTasks[0], nil
}

// tasksOf returns the tasks of an instance, in the order of their IDs.
func (i instances) tasksOf(ctx context.Context, instance string) ([]types.ReplaceRootVolumeTask, error) {
	var all []types.ReplaceRootVolumeTask
	for page, err := range pages(ctx, i.caller, ec2.NewDescribeReplaceRootVolumeTasksPaginator(i.ec2, &ec2.DescribeReplaceRootVolumeTasksInput{
		Filters: []types.Filter{{Name: aws.String("instance-id"), Values: []string{instance}}},
	})) {
		if err != nil {
			return nil, err
		}
		all = append(all, page.ReplaceRootVolumeTasks...)
	}
	slices.SortFunc(all, func(a, b types.ReplaceRootVolumeTask) int {
		return cmp.Compare(*a.ReplaceRootVolumeTaskId, *b.ReplaceRootVolumeTaskId)
	})
	return all, nil
}

// spotImages adds to used which images Spot Fleets and Spot Instance requests name
// that may still start instances. The launch templates of fleets are not among
// them.
func (i instances) spotImages(ctx context.Context, used map[string]string) error {
	for page, err := range pages(ctx, i.caller, ec2.NewDescribeSpotFleetRequestsPaginator(i.ec2, &ec2.DescribeSpotFleetRequestsInput{})) {
		if err != nil {
			return describe("list Spot Fleets", err)
		}
		for _, fleet := range page.SpotFleetRequestConfigs {
			switch fleet.SpotFleetRequestState {
			case types.BatchStateCancelled, types.BatchStateCancelledRunning, types.BatchStateCancelledTerminatingInstances, types.BatchStateFailed:
				continue
			}
			if fleet.SpotFleetRequestConfig == nil {
				continue
			}
			for _, s := range fleet.SpotFleetRequestConfig.LaunchSpecifications {
				used[aws.ToString(s.ImageId)] = "the Spot Fleet " + aws.ToString(fleet.SpotFleetRequestId) + " uses it"
			}
		}
	}
	requests := ec2.NewDescribeSpotInstanceRequestsPaginator(i.ec2, &ec2.DescribeSpotInstanceRequestsInput{
		Filters: []types.Filter{{Name: aws.String("state"), Values: []string{"open", "active", "disabled"}}},
	})
	for page, err := range pages(ctx, i.caller, requests) {
		if err != nil {
			return describe("list Spot Instance requests", err)
		}
		for _, q := range page.SpotInstanceRequests {
			if q.LaunchSpecification != nil && q.LaunchSpecification.ImageId != nil {
				used[*q.LaunchSpecification.ImageId] = "the Spot Instance request " + aws.ToString(q.SpotInstanceRequestId) + " uses it"
			}
		}
	}
	return nil
}

// rootVolume returns the ID of the root volume of an instance, or "".
func rootVolume(instance *types.Instance) string {
	for _, m := range instance.BlockDeviceMappings {
		if m.Ebs != nil && aws.ToString(m.DeviceName) == aws.ToString(instance.RootDeviceName) {
			return aws.ToString(m.Ebs.VolumeId)
		}
	}
	return ""
}
