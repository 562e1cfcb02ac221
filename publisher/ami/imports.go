package ami

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// imports are the tasks of ImportSnapshot.
type imports struct {
	ec2    *ec2.Client
	caller caller
}

// start starts a task and returns its ID. The client token makes it idempotent.
func (i imports) start(ctx context.Context, input *ec2.ImportSnapshotInput) (string, error) {
	out, err := call(ctx, i.caller, i.ec2.ImportSnapshot, input)
	if err != nil {
		return "", err
	}
	return *out.ImportTaskId, nil
}

// try asks EC2 whether it would accept a request, without starting a task.
func (i imports) try(ctx context.Context, input *ec2.ImportSnapshotInput) error {
	dry := *input
	dry.DryRun = aws.Bool(true)
	_, err := call(ctx, i.caller, i.ec2.ImportSnapshot, &dry)
	return err
}

func (i imports) byID(ctx context.Context, task string) (*types.SnapshotTaskDetail, error) {
	out, err := call(ctx, i.caller, i.ec2.DescribeImportSnapshotTasks,
		&ec2.DescribeImportSnapshotTasksInput{ImportTaskIds: []string{task}},
		hasCode("InvalidConversionTaskId", "InvalidConversionTaskId.Malformed"))
	if err != nil {
		return nil, err
	}
	if len(out.ImportSnapshotTasks) != 1 || out.ImportSnapshotTasks[0].SnapshotTaskDetail == nil {
		return new(types.SnapshotTaskDetail), nil
	}
	return out.ImportSnapshotTasks[0].SnapshotTaskDetail, nil
}

func (i imports) cancel(ctx context.Context, task string) error {
	_, err := call(ctx, i.caller, i.ec2.CancelImportTask, &ec2.CancelImportTaskInput{ImportTaskId: &task})
	return err
}
