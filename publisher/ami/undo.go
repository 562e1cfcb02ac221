package ami

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// An undoer removes what a run made in one region, by its journal. It ignores
// what is already gone. If the response to a request was lost, it sends the
// request again to find out what the request made.
type undoer struct{ *target }

// undo removes what the run made and restarts its journal.
func undo(ctx context.Context, t *target) error { return undoer{t}.run(ctx) }

// stepTime limits each step of an undo, so that one that cannot succeed leaves
// time for the others.
const stepTime = patience / 2

// run undoes everything, the last change first. It goes on after a step that
// fails, and returns the errors of all.
func (u undoer) run(ctx context.Context) error {
	j := u.journal
	if j.Start != nil || j.Object != "" || j.Image != "" {
		u.step("removing what this run made")
	}
	var errs []error
	for _, step := range []func(context.Context) error{
		u.launch, u.parameter, u.lostCopy, u.lostImage, u.ami, u.newParameter, u.importTask, u.lostSnapshot, u.ebsSnapshot, u.object,
	} {
		limited, cancel := context.WithTimeout(ctx, stepTime)
		errs = append(errs, step(limited))
		cancel()
		if ctx.Err() != nil {
			break
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return j.restart()
}

// launch terminates the instance that tests the image.
func (u undoer) launch(ctx context.Context) error {
	return u.launcher().stop(ctx)
}

// parameter restores the value that the SSM parameter had before.
func (u undoer) parameter(ctx context.Context) error {
	before, name := u.journal.Parameter, u.publisher.options.SSMParameter
	if before == nil || before.Value == nil {
		return nil
	}
	now, err := u.aws.parameters.get(ctx, name)
	if err != nil {
		return err
	}
	if value := aws.ToString(now.Value); value != *before.Value && !u.isOurs(value) {
		return nil
	}
	// Even if the value is the old one, SSM may still be about to set ours.
	if err := u.aws.parameters.put(ctx, name, *before.Value, *before); err != nil {
		return fmt.Errorf("restore the parameter %s: %w", name, err)
	}
	return nil
}

// newParameter deletes an SSM parameter that did not exist before. The image is
// gone already, because SSM may set the parameter as long as it exists.
func (u undoer) newParameter(ctx context.Context) error {
	before, name := u.journal.Parameter, u.publisher.options.SSMParameter
	if before == nil || before.Value != nil {
		return nil
	}
	now, err := u.aws.parameters.get(ctx, name)
	if err != nil || now.Value == nil || !u.isOurs(*now.Value) {
		return err
	}
	if err := u.aws.parameters.delete(ctx, name); err != nil {
		return describe("delete the parameter "+name, err)
	}
	return nil
}

// isOurs reports whether this run set the SSM parameter to a value. Otherwise
// someone else has changed the parameter since.
func (u undoer) isOurs(value string) bool {
	ours := value == cmp.Or(u.journal.Image, u.image.Image)
	if !ours {
		u.step("keeping the parameter %s, which is now %s", u.publisher.options.SSMParameter, value)
	}
	return ours
}

// lostCopy finds the image of a copy whose response was lost.
func (u undoer) lostCopy(ctx context.Context) error {
	j := u.journal
	if j.Copy == nil || j.Image != "" {
		return nil
	}
	image, err := u.aws.images.copy(ctx, j.Copy)
	if err == nil {
		err = j.note(record{Image: image})
	}
	if err != nil && ClassOf(err) == ClassOther && !isRefusal(err) {
		return fmt.Errorf("find the copy: %w", err)
	}
	return nil
}

// lostImage finds the image of a registration whose response was lost.
func (u undoer) lostImage(ctx context.Context) error {
	j := u.journal
	if !j.Register || j.Image != "" {
		return nil
	}
	image, err := u.aws.images.byName(ctx, u.publisher.options.Name)
	if err != nil {
		return err
	}
	if image != nil && tagValue(image.Tags, tagRun) == j.Run {
		j.Image = *image.ImageId
	}
	return nil
}

// ami deregisters the image.
func (u undoer) ami(ctx context.Context) error {
	j := u.journal
	if j.Image == "" {
		return nil
	}
	if j.Protect {
		if err := u.aws.images.unprotect(ctx, j.Image); err != nil {
			return err
		}
	}
	return u.aws.images.deregister(ctx, j.Image, j.Copy != nil)
}

// importTask cancels the import task. If the task has made a snapshot,
// importTask sets it in the journal, so that it is deleted.
func (u undoer) importTask(ctx context.Context) error {
	j := u.journal
	if j.Task == "" && j.Import == nil {
		return nil
	}
	if j.Task == "" {
		task, err := u.aws.imports.start(ctx, j.Import)
		if err == nil {
			err = j.note(record{Task: task})
		}
		if isRefusal(err) {
			return nil // it was never started
		} else if err != nil {
			return fmt.Errorf("find the import: %w", err)
		}
	}
	for start := time.Now(); ; {
		detail, err := u.aws.imports.byID(ctx, j.Task)
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
			if err := u.aws.imports.cancel(ctx, j.Task); err != nil && !isRefusal(err) {
				return describe("cancel "+j.Task, err)
			}
		}
		if time.Since(start) > time.Minute {
			return fail(ClassOther, "%s does not end", j.Task)
		}
		if err := sleep(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
}

// lostSnapshot finds a started snapshot whose response was lost.
func (u undoer) lostSnapshot(ctx context.Context) error {
	j := u.journal
	if j.Start == nil || j.Snapshot != "" {
		return nil
	}
	out, err := u.aws.blocks.start(ctx, j.Start)
	if err == nil {
		j.Snapshot = *out.SnapshotId
	} else if !isRefusal(err) {
		return fmt.Errorf("find the snapshot: %w", err)
	}
	return nil
}

// ebsSnapshot deletes the snapshot, unless another run has made an image of it.
func (u undoer) ebsSnapshot(ctx context.Context) error {
	id := u.journal.Snapshot
	if id == "" {
		return nil
	}
	for start := time.Now(); ; {
		err := u.aws.snapshots.delete(ctx, id)
		switch {
		case err == nil:
			return nil
		case isSnapshotMissing(err):
			if time.Since(start) > settled {
				return nil
			}
		case isSnapshotInUse(err) && time.Since(start) < stepTime/2:
			// The response to the registration was lost, or EC2 does not show
			// the image yet.
			if kept, err := u.imagesOf(ctx, id); kept || err != nil {
				return err
			}
		case isSnapshotInUse(err):
			return fmt.Errorf("%w; if a rule of Recycle Bin retains its image, both go with that image", describe("delete "+id, err))
		default:
			return describe("delete "+id, err)
		}
		if err := sleep(ctx, time.Second); err != nil {
			return err
		}
	}
}

// imagesOf deregisters the images that this run made of a snapshot. It reports
// whether another run uses the snapshot.
func (u undoer) imagesOf(ctx context.Context, snapshot string) (kept bool, err error) {
	images, err := u.aws.images.bySnapshot(ctx, snapshot)
	if err != nil {
		return false, err
	}
	for _, image := range images {
		if tagValue(image.Tags, tagRun) != u.journal.Run {
			u.step("keeping %s, which %s uses", snapshot, *image.ImageId)
			kept = true
		} else if err := u.aws.images.deregister(ctx, *image.ImageId, false); err != nil {
			return false, err
		}
	}
	return kept, nil
}

// object deletes the object in S3.
func (u undoer) object(ctx context.Context) error {
	bucket, key := u.publisher.options.Bucket, u.journal.Object
	if key == "" {
		return nil
	}
	if err := u.aws.objects.delete(ctx, bucket, key, looksForParts); err != nil {
		return describe("delete s3://"+bucket+"/"+key, err)
	}
	return nil
}
