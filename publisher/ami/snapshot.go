package ami

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// A snapshotter gets a snapshot of the disk.
type snapshotter struct{ *target }

// run returns a completed snapshot of the disk: the one in the journal, an
// existing one with the same content, or a new one.
func (s snapshotter) run(ctx context.Context) (string, error) {
	if id, err := s.resume(ctx); err != nil || id != "" {
		return id, err
	}
	p := s.publisher
	same, err := s.aws.snapshots.byTag(ctx, TagToken, s.snapshotToken)
	if err != nil {
		return "", err
	}
	if len(same) > 0 {
		if err := s.verifyDisk(ctx); err != nil {
			return "", err
		}
		s.step("using %s, which has the same content", *same[0].SnapshotId)
		s.monitor().Skipped.Add(int64(p.disk.Count()))
		return *same[0].SnapshotId, nil
	}
	if p.options.Method == MethodImport {
		return importDisk(ctx, s.target)
	}
	return upload(ctx, s.target)
}

// resume continues the snapshot in the journal. It returns "" if there is none
// or if AWS has given it up.
func (s snapshotter) resume(ctx context.Context) (string, error) {
	j := s.journal
	if j.Object == "" && j.Start == nil {
		return "", nil
	}
	if err := s.verifyDisk(ctx); err != nil {
		return "", err
	}
	switch {
	case j.Object != "":
		return importDisk(ctx, s.target)
	case j.Snapshot != "":
		found, err := s.aws.snapshots.byID(ctx, j.Snapshot)
		if err != nil && !isSnapshotMissing(err) {
			return "", describe("look for "+j.Snapshot, err)
		}
		if err == nil && found.State == types.SnapshotStateCompleted {
			s.step("continuing with %s, which is complete", j.Snapshot)
			return j.Snapshot, nil
		}
		if err != nil || found.State != types.SnapshotStatePending {
			s.step("%s has expired: starting a new snapshot", j.Snapshot)
			return "", undo(ctx, s.target)
		}
		s.step("continuing %s", j.Snapshot)
	}
	return upload(ctx, s.target)
}
