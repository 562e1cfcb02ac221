package ami

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// prefix of the objects in the bucket.
const prefix = "slipway-publish/"

// importLimit is how long ImportSnapshot may take. 10 GiB have been seen to
// take 100 minutes.
const importLimit = 4 * time.Hour

// importSnapshot takes the disk through S3: upload, import, wait, delete.
func (r *region) importSnapshot(ctx context.Context) (string, error) {
	j := r.journal
	if j.Object == "" {
		if err := j.note(record{Object: prefix + j.Run + ".raw"}); err != nil {
			return "", err
		}
	}
	if j.Import == nil {
		if err := r.uploadObject(ctx, j.Object); err != nil {
			return "", err
		}
		input := &ec2.ImportSnapshotInput{
			ClientToken: aws.String(digest([]string{j.Run, "import"})),
			Description: aws.String(r.Name),
			RoleName:    &r.Role,
			DiskContainer: &types.SnapshotDiskContainer{
				Description: aws.String(r.Name),
				Format:      aws.String("RAW"),
				UserBucket:  &types.UserBucket{S3Bucket: &r.Bucket, S3Key: &j.Object},
			},
			TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeImportSnapshotTask, Tags: r.tags(r.source)}},
		}
		if r.Encrypt {
			input.Encrypted = aws.Bool(true)
			if r.KMSKey != "" {
				input.KmsKeyId = &r.KMSKey
			}
		}
		if err := j.note(record{Import: input}); err != nil {
			return "", err
		}
	}
	if j.Task == "" {
		r.step("importing s3://%s/%s", r.Bucket, j.Object)
		if err := r.startImport(ctx); err != nil {
			return "", describe("import s3://"+r.Bucket+"/"+j.Object, err)
		}
	}
	if err := r.imported(ctx); err != nil {
		return "", err
	}
	// The task has the tags; the snapshot gets them only now.
	_, err := try(ctx, r.caller, func(ctx context.Context) (*ec2.CreateTagsOutput, error) {
		return r.ec2.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{j.Snapshot}, Tags: r.tags(r.source)})
	}, hasCode("InvalidSnapshot.NotFound"))
	if err != nil {
		return "", describe("tag "+j.Snapshot, err)
	}
	if err := r.completed(ctx, j.Snapshot, time.Hour); err != nil {
		return "", err
	}
	if err := r.deleteObject(ctx, j.Object); err != nil {
		return "", describe("delete s3://"+r.Bucket+"/"+j.Object, err)
	}
	return j.Snapshot, nil
}

func (r *region) uploadObject(ctx context.Context, key string) error {
	r.step("uploading to s3://%s/%s", r.Bucket, key)
	blocks := int64(r.disk.Count())
	r.Monitor.Blocks.Add(blocks)
	body := &counted{SectionReader: io.NewSectionReader(r.disk, 0, r.disk.Size), monitor: r.Monitor}
	manager := transfermanager.New(r.s3, func(o *transfermanager.Options) {
		// At most 8 parts in memory, and at most 10,000 in all.
		o.PartSizeBytes = max(8<<20, (r.disk.Size/9000+1<<20)>>20<<20)
		o.Concurrency = 8
		o.FailTimeout = 30 * time.Second
	})
	_, err := manager.UploadObject(ctx, &transfermanager.UploadObjectInput{Bucket: &r.Bucket, Key: &key, Body: body})
	if err != nil && ctx.Err() == nil {
		// The answer to the last request may have been lost.
		head, lost := r.s3.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &r.Bucket, Key: &key})
		if lost == nil && aws.ToInt64(head.ContentLength) == r.disk.Size {
			err = nil
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return describe("upload to s3://"+r.Bucket+"/"+key, err)
	}
	return nil
}

// counted tells the monitor how far a reader is.
type counted struct {
	*io.SectionReader
	monitor *Monitor
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.SectionReader.Read(p)
	before := c.monitor.Bytes.Load()
	now := c.monitor.Bytes.Add(int64(n))
	c.monitor.Written.Add(now>>19 - before>>19)
	return n, err
}

// startImport starts the task, or finds the one it has started before.
func (r *region) startImport(ctx context.Context) error {
	out, err := try(ctx, r.caller, func(ctx context.Context) (*ec2.ImportSnapshotOutput, error) {
		return r.ec2.ImportSnapshot(ctx, r.journal.Import)
	})
	if err != nil {
		return err
	}
	return r.journal.note(record{Task: *out.ImportTaskId})
}

func (r *region) describeImport(ctx context.Context) (*types.SnapshotTaskDetail, error) {
	out, err := try(ctx, r.caller, func(ctx context.Context) (*ec2.DescribeImportSnapshotTasksOutput, error) {
		return r.ec2.DescribeImportSnapshotTasks(ctx, &ec2.DescribeImportSnapshotTasksInput{ImportTaskIds: []string{r.journal.Task}})
	}, hasCode("InvalidConversionTaskId", "InvalidConversionTaskId.Malformed"))
	if err != nil {
		return nil, err
	}
	if len(out.ImportSnapshotTasks) != 1 || out.ImportSnapshotTasks[0].SnapshotTaskDetail == nil {
		return new(types.SnapshotTaskDetail), nil
	}
	return out.ImportSnapshotTasks[0].SnapshotTaskDetail, nil
}

// imported waits for the task and notes its snapshot.
func (r *region) imported(ctx context.Context) error {
	task, last := r.journal.Task, ""
	return poll(ctx, task, importLimit, func() (bool, error) {
		detail, err := r.describeImport(ctx)
		if err != nil {
			return false, describe("wait for "+task, err)
		}
		message := aws.ToString(detail.StatusMessage)
		if line := fmt.Sprintf("%s: %s %s%%", task, message, aws.ToString(detail.Progress)); message != "" && line != last {
			last = line
			r.step("%s", line)
		}
		if id := aws.ToString(detail.SnapshotId); id != "" && r.journal.Snapshot == "" {
			if err := r.journal.note(record{Snapshot: id}); err != nil {
				return false, err
			}
		}
		switch aws.ToString(detail.Status) {
		case "completed":
			return r.journal.Snapshot != "", nil
		case "deleting", "deleted", "error", "cancelled", "failed":
			return false, fail(Other, "%s has ended without a snapshot: %s: %s", task, aws.ToString(detail.Status), message)
		}
		return false, nil
	})
}

// cancelImport ends the task. A snapshot that it has made is noted, to be
// deleted.
func (r *region) cancelImport(ctx context.Context) error {
	j := r.journal
	if j.Task == "" {
		if err := r.startImport(ctx); isAnswer(err) {
			return nil // it was never started
		} else if err != nil {
			return fmt.Errorf("find the import: %w", err)
		}
	}
	for start := time.Now(); ; {
		detail, err := r.describeImport(ctx)
		if err != nil {
			return describe("look for "+j.Task, err)
		}
		if id := aws.ToString(detail.SnapshotId); id != "" {
			j.Snapshot = id
		}
		switch aws.ToString(detail.Status) {
		case "completed", "deleted", "error", "cancelled", "failed":
			return nil
		case "deleting":
		default:
			_, err := try(ctx, r.caller, func(ctx context.Context) (*ec2.CancelImportTaskOutput, error) {
				return r.ec2.CancelImportTask(ctx, &ec2.CancelImportTaskInput{ImportTaskId: &j.Task})
			})
			if err != nil && !isAnswer(err) {
				return describe("cancel "+j.Task, err)
			}
		}
		if time.Since(start) > time.Minute {
			return fail(Other, "%s does not end", j.Task)
		}
		if err := sleep(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
}

// deleteObject removes the object, and the parts of uploads that never became
// one. Requests to S3 are sent again by its client.
func (r *region) deleteObject(ctx context.Context, key string) error {
	pages := s3.NewListMultipartUploadsPaginator(r.s3, &s3.ListMultipartUploadsInput{Bucket: &r.Bucket, Prefix: &key})
	var aborted error
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			if hasCode("NoSuchBucket")(err) {
				return nil
			}
			return err
		}
		for _, upload := range page.Uploads {
			_, err := r.s3.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &r.Bucket, Key: upload.Key, UploadId: upload.UploadId})
			if err != nil && errorCode(err) != "NoSuchUpload" {
				aborted = errors.Join(aborted, err)
			}
		}
	}
	_, err := r.s3.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &r.Bucket, Key: &key})
	return errors.Join(aborted, err)
}
