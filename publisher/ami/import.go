package ami

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// importLimit is the limit of ImportSnapshot. 10 GiB have been seen to take 100
// minutes.
const importLimit = 4 * time.Hour

// An importer uploads the disk to S3 and imports it as a snapshot.
type importer struct{ *target }

// importDisk returns a completed snapshot of the disk.
func importDisk(ctx context.Context, t *target) (string, error) { return importer{t}.run(ctx) }

// run continues the import in the journal, or starts one, and removes the
// object afterwards.
func (i importer) run(ctx context.Context) (string, error) {
	j, o := i.journal, &i.publisher.options
	if j.Object == "" {
		if err := j.note(record{Object: objectPrefix + j.Run + ".raw"}); err != nil {
			return "", err
		}
	}
	url := "s3://" + o.Bucket + "/" + j.Object
	if j.Import == nil {
		i.step("uploading to %s", url)
		if err := i.upload(ctx); err != nil {
			return "", describe("upload to "+url, err)
		}
		// S3 checks what it receives, but not against the digests of the disk.
		if changed, err := i.publisher.disk.Changed(ctx); ctx.Err() != nil {
			return "", context.Cause(ctx)
		} else if err != nil {
			return "", &Error{ClassDisk, err}
		} else if changed {
			return "", diskChanged(i.publisher.disk)
		}
		if err := j.note(record{Import: i.importRequest(j.Object)}); err != nil {
			return "", err
		}
	}
	if j.Task == "" {
		i.step("importing %s", url)
		task, err := i.aws.imports.start(ctx, j.Import)
		if err == nil {
			err = j.note(record{Task: task})
		}
		if err != nil {
			return "", describe("import "+url, err)
		}
	}
	if err := i.wait(ctx); err != nil {
		return "", err
	}
	// ImportSnapshot tags the task, but not the snapshot.
	if err := i.aws.snapshots.tag(ctx, j.Snapshot, i.tags(i.snapshotToken)); err != nil {
		return "", describe("tag "+j.Snapshot, err)
	}
	if err := i.aws.snapshots.wait(ctx, j.Snapshot, time.Hour); err != nil {
		return "", err
	}
	if err := i.aws.objects.delete(ctx, o.Bucket, j.Object, 1); err != nil {
		return "", describe("delete "+url, err)
	}
	return j.Snapshot, nil
}

func (i importer) upload(ctx context.Context) error {
	d := i.publisher.disk
	i.monitor().Blocks.Add(int64(d.Count()))
	body := &monitoredReader{SectionReader: io.NewSectionReader(d, 0, d.Size), monitor: i.monitor()}
	return i.aws.objects.upload(ctx, i.publisher.options.Bucket, i.journal.Object, body, d.Size)
}

// A monitoredReader counts in the monitor what is read from it.
type monitoredReader struct {
	*io.SectionReader
	monitor *Monitor
}

func (r *monitoredReader) Read(p []byte) (int, error) {
	n, err := r.SectionReader.Read(p)
	now := r.monitor.Bytes.Add(int64(n))
	before := now - int64(n)
	r.monitor.Written.Add(now>>19 - before>>19)
	return n, err
}

// wait waits for the task and writes its snapshot to the journal.
func (i importer) wait(ctx context.Context) error {
	task, last := i.journal.Task, ""
	return poll(ctx, task, importLimit, func(ctx context.Context) (bool, error) {
		detail, err := i.aws.imports.byID(ctx, task)
		if err != nil {
			return false, describe("wait for "+task, err)
		}
		message := aws.ToString(detail.StatusMessage)
		if line := fmt.Sprintf("%s: %s %s%%", task, message, aws.ToString(detail.Progress)); message != "" && line != last {
			last = line
			i.step("%s", line)
		}
		if id := aws.ToString(detail.SnapshotId); id != "" && i.journal.Snapshot == "" {
			if err := i.journal.note(record{Snapshot: id}); err != nil {
				return false, err
			}
		}
		switch status := aws.ToString(detail.Status); status {
		case "completed":
			return i.journal.Snapshot != "", nil
		case "deleting", "deleted", "error", "cancelled", "failed":
			return false, fail(ClassOther, "%s ended without a snapshot: %s: %s", task, status, message)
		}
		return false, nil
	})
}
