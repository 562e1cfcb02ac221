package ami

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// snapshots are the EBS snapshots of the account. Type blocks has what is in
// them.
type snapshots struct {
	ec2    *ec2.Client
	caller caller
}

var (
	isSnapshotMissing = hasCode("InvalidSnapshot.NotFound")
	isSnapshotInUse   = hasCode("InvalidSnapshot.InUse")
	isSnapshotLocked  = hasCode("OperationNotPermitted")
)

func (s snapshots) byID(ctx context.Context, id string) (*types.Snapshot, error) {
	out, err := call(ctx, s.caller, s.ec2.DescribeSnapshots, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{id}})
	if err != nil {
		return nil, err
	}
	if len(out.Snapshots) != 1 {
		return nil, fmt.Errorf("EC2 described %d snapshots instead of %s", len(out.Snapshots), id)
	}
	return &out.Snapshots[0], nil
}

// byTag returns the completed snapshots with a tag, the newest first, without
// archived ones.
func (s snapshots) byTag(ctx context.Context, key, value string) ([]types.Snapshot, error) {
	var all []types.Snapshot
	for page, err := range s.filter(ctx,
		types.Filter{Name: aws.String("tag:" + key), Values: []string{value}},
		types.Filter{Name: aws.String("status"), Values: []string{"completed"}},
	) {
		if err != nil {
			return nil, describe("look for snapshots", err)
		}
		for _, found := range page.Snapshots {
			if found.StorageTier != types.StorageTierArchive { // those cannot be used
				all = append(all, found)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b types.Snapshot) int { return aws.ToTime(b.StartTime).Compare(aws.ToTime(a.StartTime)) })
	return all, nil
}

func (s snapshots) filter(ctx context.Context, filters ...types.Filter) iter.Seq2[*ec2.DescribeSnapshotsOutput, error] {
	return pages(ctx, s.caller, ec2.NewDescribeSnapshotsPaginator(s.ec2,
		&ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}, Filters: filters}))
}

// wait waits until a snapshot is completed.
func (s snapshots) wait(ctx context.Context, id string, limit time.Duration) error {
	return poll(ctx, id, limit, func(ctx context.Context) (bool, error) {
		found, err := s.byID(ctx, id)
		if isSnapshotMissing(err) || err == nil && found.State == types.SnapshotStatePending {
			return false, nil
		}
		if err != nil {
			return false, describe("wait for "+id, err)
		}
		if found.State == types.SnapshotStateError {
			return false, fail(ClassOther, "%s failed: %s", id, aws.ToString(found.StateMessage))
		}
		return found.State == types.SnapshotStateCompleted, nil
	})
}

func (s snapshots) tag(ctx context.Context, id string, tags []types.Tag) error {
	_, err := call(ctx, s.caller, s.ec2.CreateTags, &ec2.CreateTagsInput{Resources: []string{id}, Tags: tags}, isSnapshotMissing)
	return err
}

// share adds and removes those who may make volumes of a snapshot, named as in
// [Options.Share].
func (s snapshots) share(ctx context.Context, id string, add, remove []string) error {
	change := &types.CreateVolumePermissionModifications{Add: volumePermissions(add), Remove: volumePermissions(remove)}
	if change.Add == nil && change.Remove == nil {
		return nil
	}
	_, err := call(ctx, s.caller, s.ec2.ModifySnapshotAttribute, &ec2.ModifySnapshotAttributeInput{
		SnapshotId: &id, Attribute: types.SnapshotAttributeNameCreateVolumePermission, CreateVolumePermission: change,
	})
	return err
}

func (s snapshots) delete(ctx context.Context, id string) error {
	_, err := call(ctx, s.caller, s.ec2.DeleteSnapshot, &ec2.DeleteSnapshotInput{SnapshotId: &id})
	return err
}

// defaultKey returns the key for snapshots whose request names none:
// alias/aws/ebs, or a key that the account has chosen.
func (s snapshots) defaultKey(ctx context.Context) (string, error) {
	out, err := call(ctx, s.caller, s.ec2.GetEbsDefaultKmsKeyId, &ec2.GetEbsDefaultKmsKeyIdInput{})
	if err != nil {
		return "", describe("read the account's default key", err)
	}
	return aws.ToString(out.KmsKeyId), nil
}

// isPublicBlocked reports whether the account does not permit new public
// snapshots.
func (s snapshots) isPublicBlocked(ctx context.Context) (bool, error) {
	out, err := call(ctx, s.caller, s.ec2.GetSnapshotBlockPublicAccessState, &ec2.GetSnapshotBlockPublicAccessStateInput{})
	if err != nil {
		return false, describe("read whether public snapshots are blocked", err)
	}
	return out.State != types.SnapshotBlockPublicAccessStateUnblocked, nil
}

// encryptedByDefault reports whether the account encrypts all new snapshots.
func (s snapshots) encryptedByDefault(ctx context.Context) (bool, error) {
	out, err := call(ctx, s.caller, s.ec2.GetEbsEncryptionByDefault, &ec2.GetEbsEncryptionByDefaultInput{})
	if err != nil {
		return false, describe("read the account's default encryption", err)
	}
	return aws.ToBool(out.EbsEncryptionByDefault), nil
}
