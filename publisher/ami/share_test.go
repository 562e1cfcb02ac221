package ami_test

import (
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

const (
	homeKey   = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-4333-8444-000000000001"
	abroadKey = "arn:aws:kms:eu-west-1:123456789012:key/11111111-2222-4333-8444-000000000002"
	multiKey  = "arn:aws:kms:us-east-1:123456789012:key/mrk-11111111222243338444000000000003"
)

// clientOf returns a client of EC2 in the home region.
func clientOf(t testing.TB, fake *awstest.Server) *ec2.Client {
	return ec2.NewFromConfig(configure(t, fake))
}

// TestKeys publishes to two regions with keys of each.
func TestKeys(t *testing.T) {
	t.Parallel()
	for what, test := range map[string]struct {
		options ami.Options
		want    []string // keys
		refused string
	}{
		"per region":   {options: ami.Options{KMSKeys: map[string]string{home: homeKey, "eu-west-1": abroadKey}}, want: []string{homeKey, abroadKey}},
		"multi-Region": {options: ami.Options{KMSKey: multiKey}, want: []string{multiKey, strings.Replace(multiKey, home, "eu-west-1", 1)}},
		"one region":   {options: ami.Options{KMSKey: homeKey}, refused: "cannot be used in eu-west-1: add --kms-key eu-west-1=ARN"},
		"missing":      {options: ami.Options{KMSKeys: map[string]string{home: homeKey}}, refused: "no key for eu-west-1"},
		"wrong region": {options: ami.Options{KMSKeys: map[string]string{home: abroadKey}}, refused: "is not in us-east-1"},
	} {
		for _, onlyCopy := range []bool{false, true} {
			fake := start(t, awstest.Knobs{})
			o := test.options
			o.Regions, o.Copy, o.Share = []string{home, "eu-west-1"}, onlyCopy, []string{"111122223333"}
			result, err := publish(t.Context(), t, fake, write(t, content(1, 3)), o)
			if test.refused != "" {
				if ami.ClassOf(err) != ami.ClassUsage || !strings.Contains(err.Error(), test.refused) {
					t.Errorf("%s: got %v, want %q", what, err, test.refused)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s, copy=%v: %v", what, onlyCopy, err)
				continue
			}
			for i, image := range result.Images {
				client := ec2.NewFromConfig(configure(t, fake), func(o *ec2.Options) { o.Region = image.Region })
				out, err := client.DescribeSnapshots(t.Context(), &ec2.DescribeSnapshotsInput{SnapshotIds: []string{image.Snapshot}})
				if err != nil {
					t.Fatal(err)
				}
				if got := aws.ToString(out.Snapshots[0].KmsKeyId); got != test.want[i] {
					t.Errorf("%s, copy=%v: the key in %s is %s, not %s", what, onlyCopy, image.Region, got, test.want[i])
				}
			}
		}
	}
}

// permissions returns who may launch an image and make volumes of its snapshot.
func permissions(t testing.TB, fake *awstest.Server, image *ami.Image) (launch, volume []string) {
	t.Helper()
	out, err := clientOf(t, fake).DescribeImageAttribute(t.Context(), &ec2.DescribeImageAttributeInput{
		ImageId: &image.Image, Attribute: types.ImageAttributeNameLaunchPermission,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range out.LaunchPermissions {
		launch = append(launch, aws.ToString(p.UserId)+aws.ToString(p.OrganizationArn)+string(p.Group))
	}
	slices.Sort(launch)
	for _, s := range fake.Snapshots() {
		if s.ID == image.Snapshot {
			volume = s.Shared
		}
	}
	return launch, volume
}

// TestShareAgain shares an image and its snapshot. Further runs apply changes of
// the accounts and the tags.
func TestShareAgain(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{})
	const a, b, organization = "111122223333", "444455556666", "arn:aws:organizations::123456789012:organization/o-0123456789"
	d := write(t, content(1, 3))
	for _, step := range []struct {
		share          []string
		team           string
		launch, volume []string
	}{
		{[]string{a, organization}, "infra", []string{a, organization}, []string{a}},
		{[]string{a, b}, "sales", []string{a, b}, []string{a, b}},
		{[]string{b}, "sales", []string{b}, []string{b}},
		{nil, "", []string{b}, []string{b}},
		{[]string{"all"}, "", []string{"all"}, []string{"all"}},
	} {
		o := ami.Options{Share: step.share}
		if step.team != "" {
			o.Tags = map[string]string{"Team": step.team}
		}
		image := mustPublish(t, fake, d, o).Images[0]
		launch, volume := permissions(t, fake, image)
		if !slices.Equal(launch, step.launch) || !slices.Equal(volume, step.volume) {
			t.Errorf("share %v: got %v and %v", step.share, launch, volume)
		}
		if step.team != "" && fake.Snapshots()[0].Tags["Team"] != step.team {
			t.Errorf("the tags of the snapshot are %v", fake.Snapshots()[0].Tags)
		}
	}
	// The images share a snapshot, which must stay shared with the accounts of both.
	other := mustPublish(t, fake, d, ami.Options{Name: "machine-2", Share: []string{a, b}}).Images[0]
	mustPublish(t, fake, d, ami.Options{Name: "machine-2", Share: []string{a}})
	if launch, volume := permissions(t, fake, other); !slices.Equal(launch, []string{a}) || !slices.Equal(volume, []string{a, b, "all"}) {
		t.Errorf("got %v and %v", launch, volume)
	}
}

// TestDisabledImage checks that a disabled image holds its name and its snapshot.
func TestDisabledImage(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{})
	d := write(t, content(1, 3))
	image := mustPublish(t, fake, d, ami.Options{}).Images[0]
	if _, err := clientOf(t, fake).DisableImage(t.Context(), &ec2.DisableImageInput{ImageId: &image.Image}); err != nil {
		t.Fatal(err)
	}
	starts := fake.Count("ebs:StartSnapshot")
	for what, d := range map[string]uint64{"same disk": 1, "another disk": 2} {
		_, err := publish(t.Context(), t, fake, write(t, content(d, 3)), ami.Options{})
		if ami.ClassOf(err) != ami.ClassNameTaken || !strings.Contains(err.Error(), image.Image+", which is disabled") {
			t.Errorf("%s: got %v", what, err)
		}
	}
	if fake.Count("ebs:StartSnapshot") != starts {
		t.Error("uploaded the disk before")
	}
	if found, err := ami.GC(t.Context(), configure(t, fake), ami.GCOptions{OlderThan: -time.Minute}); err != nil || len(found) > 0 {
		t.Errorf("GC: got %v, %v", found, err)
	}
}

// TestArchivedAndLocked checks that archived snapshots are neither used nor
// removed, and that locked ones are not removed.
func TestArchivedAndLocked(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{})
	client := clientOf(t, fake)
	orphan := func(seed uint64, name string) string {
		image := mustPublish(t, fake, write(t, content(seed, 3)), ami.Options{Name: name}).Images[0]
		if _, err := client.DeregisterImage(t.Context(), &ec2.DeregisterImageInput{ImageId: &image.Image}); err != nil {
			t.Fatal(err)
		}
		return image.Snapshot
	}
	archived, locked := orphan(1, "archived"), orphan(2, "locked")
	if _, err := client.ModifySnapshotTier(t.Context(), &ec2.ModifySnapshotTierInput{SnapshotId: &archived, StorageTier: types.TargetStorageTierArchive}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.LockSnapshot(t.Context(), &ec2.LockSnapshotInput{SnapshotId: &locked, LockMode: types.LockModeGovernance, LockDuration: aws.Int32(1)}); err != nil {
		t.Fatal(err)
	}
	if found, err := ami.GC(t.Context(), configure(t, fake), ami.GCOptions{OlderThan: -time.Minute}); err != nil || len(found) > 0 {
		t.Errorf("GC: got %v, %v", found, err)
	}
	if image := mustPublish(t, fake, write(t, content(1, 3)), ami.Options{Parent: "auto"}).Images[0]; image.Snapshot == archived || image.Blocks.Parent == archived {
		t.Errorf("used the archived snapshot: %+v", image)
	}
	_, err := publish(t.Context(), t, fake, write(t, content(3, 3)), ami.Options{Name: "child", Parent: archived})
	if ami.ClassOf(err) != ami.ClassUsage || !strings.Contains(err.Error(), "is archived") {
		t.Errorf("got %v", err)
	}
}
