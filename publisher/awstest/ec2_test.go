package awstest_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/slipway-build/slipway/publisher/awstest"
)

func TestRegisterImageChecks(t *testing.T) {
	c := start(t, awstest.Knobs{})
	id := c.snapshot(nil, func(in *ebs.StartSnapshotInput) { in.VolumeSize = aws.Int64(2) })
	device := func(in *ec2.RegisterImageInput) *ec2types.EbsBlockDevice { return in.BlockDeviceMappings[0].Ebs }
	n := 0
	for name, test := range map[string]struct {
		change func(*ec2.RegisterImageInput)
		want   string // in the violation; "" means none
	}{
		"good": {func(*ec2.RegisterImageInput) {}, ""},
		"arm": {func(in *ec2.RegisterImageInput) {
			in.Architecture, in.BootMode = ec2types.ArchitectureValuesArm64, ec2types.BootModeValuesUefi
		}, ""},
		"TPM": {func(in *ec2.RegisterImageInput) {
			in.BootMode, in.TpmSupport, in.UefiData = ec2types.BootModeValuesUefi, ec2types.TpmSupportValuesV20, aws.String("QU1aTg==")
		}, ""},
		"larger volume":      {func(in *ec2.RegisterImageInput) { device(in).VolumeSize = aws.Int32(3) }, ""},
		"smaller volume":     {func(in *ec2.RegisterImageInput) { device(in).VolumeSize = aws.Int32(1) }, "smaller than snapshot"},
		"short name":         {func(in *ec2.RegisterImageInput) { in.Name = aws.String("ab") }, "InvalidAMIName.Malformed"},
		"bad name":           {func(in *ec2.RegisterImageInput) { in.Name = aws.String("a:b:c") }, "InvalidAMIName.Malformed"},
		"default of machine": {func(in *ec2.RegisterImageInput) { in.Architecture = "" }, "i386"},
		"paravirtual":        {func(in *ec2.RegisterImageInput) { in.VirtualizationType = nil }, "paravirtual"},
		"unknown boot mode":  {func(in *ec2.RegisterImageInput) { in.BootMode = "bios" }, "BootMode"},
		"TPM without UEFI":   {func(in *ec2.RegisterImageInput) { in.TpmSupport = ec2types.TpmSupportValuesV20 }, "TpmSupport v2.0 requires"},
		"arm with BIOS":      {func(in *ec2.RegisterImageInput) { in.Architecture = ec2types.ArchitectureValuesArm64 }, "not supported for architecture arm64"},
		"UEFI data and BIOS": {func(in *ec2.RegisterImageInput) {
			in.BootMode, in.UefiData = ec2types.BootModeValuesLegacyBios, aws.String("QU1aTg==")
		}, "UefiData requires"},
		"UEFI data not base64": {func(in *ec2.RegisterImageInput) { in.UefiData = aws.String("?") }, "not base64"},
		"encrypted mapping":    {func(in *ec2.RegisterImageInput) { device(in).Encrypted = aws.Bool(false) }, "encrypted flag"},
		"no root":              {func(in *ec2.RegisterImageInput) { in.RootDeviceName = aws.String("/dev/sda1") }, "is not mapped"},
		"device twice": {func(in *ec2.RegisterImageInput) {
			in.BlockDeviceMappings = append(in.BlockDeviceMappings, in.BlockDeviceMappings[0])
		}, "mapped twice"},
		"non-ASCII description": {func(in *ec2.RegisterImageInput) { in.Description = aws.String("Maschine für alle") }, "255 ASCII characters"},
		"long description":      {func(in *ec2.RegisterImageInput) { in.Description = aws.String(strings.Repeat("x", 256)) }, "255 ASCII characters"},
		"unknown volume type":   {func(in *ec2.RegisterImageInput) { device(in).VolumeType = "gp9" }, "VolumeType"},
		"cold root":             {func(in *ec2.RegisterImageInput) { device(in).VolumeType = "sc1" }, "cannot be a root volume"},
		"few IOPS":              {func(in *ec2.RegisterImageInput) { device(in).Iops = aws.Int32(50) }, "3000 to 80000 IOPS"},
		"included IOPS":         {func(in *ec2.RegisterImageInput) { device(in).Iops = aws.Int32(3000) }, ""},
		"IOPS of 8 GiB": {func(in *ec2.RegisterImageInput) {
			device(in).VolumeSize, device(in).Iops = aws.Int32(8), aws.Int32(6000)
		}, "500 IOPS per GiB"},
		"IOPS of 12 GiB": {func(in *ec2.RegisterImageInput) {
			device(in).VolumeSize, device(in).Iops = aws.Int32(12), aws.Int32(6000)
		}, ""},
		"throughput":       {func(in *ec2.RegisterImageInput) { device(in).Throughput = aws.Int32(1000) }, "requires 4000 IOPS"},
		"io1 without IOPS": {func(in *ec2.RegisterImageInput) { device(in).VolumeType, device(in).VolumeSize = "io1", aws.Int32(4) }, "requires Iops"},
		"small io1":        {func(in *ec2.RegisterImageInput) { device(in).VolumeType, device(in).Iops = "io1", aws.Int32(100) }, "4 to 16384 GiB"},
		"iops of gp2": {func(in *ec2.RegisterImageInput) {
			device(in).VolumeType, device(in).Iops = ec2types.VolumeTypeGp2, aws.Int32(3000)
		}, "Iops is not supported"},
		"tags of a snapshot": {func(in *ec2.RegisterImageInput) {
			in.TagSpecifications[0].ResourceType = ec2types.ResourceTypeSnapshot
		}, "ResourceType"},
		"too many tags": {func(in *ec2.RegisterImageInput) {
			for i := range 50 {
				in.TagSpecifications[0].Tags = append(in.TagSpecifications[0].Tags, ec2types.Tag{Key: aws.String(fmt.Sprint(i)), Value: aws.String("")})
			}
		}, "TagLimitExceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(c.fake.Violations())
			n++
			in := imageInput(fmt.Sprintf("machine %d", n), id)
			test.change(in)
			_, err := c.ec2.RegisterImage(c.ctx, in)
			found := c.fake.Violations()[before:]
			if test.want == "" {
				if err != nil || len(found) > 0 {
					t.Errorf("%v, violations %v", err, found)
				}
			} else if err == nil || len(found) != 1 || !strings.Contains(found[0].String(), test.want) {
				t.Errorf("%v, violations %v, want %q", err, found, test.want)
			}
		})
	}
	before := len(c.fake.Violations())
	if _, err := c.ec2.RegisterImage(c.ctx, imageInput("nothing", "snap-00000000000000000")); code(err) != "InvalidSnapshot.NotFound" {
		t.Errorf("image without a snapshot: %v", err)
	}
	if v := c.fake.Violations()[before:]; len(v) > 0 {
		t.Error(v)
	}
}

func TestDryRunAndPermission(t *testing.T) {
	c := start(t, awstest.Knobs{Denied: []string{"ec2:DeleteSnapshot", "ebs:*"}})
	in := imageInput("machine", "snap-00000000000000000")
	in.DryRun = aws.Bool(true)
	if _, err := c.ec2.RegisterImage(c.ctx, in); code(err) != "DryRunOperation" {
		t.Error(err)
	}
	if _, err := c.ec2.DeleteSnapshot(c.ctx, &ec2.DeleteSnapshotInput{SnapshotId: aws.String("snap-0"), DryRun: aws.Bool(true)}); code(err) != "UnauthorizedOperation" {
		t.Error(err)
	}
	if _, err := c.ebs.StartSnapshot(c.ctx, &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1)}); code(err) != "AccessDeniedException" {
		t.Error(err)
	}
	c.clean()
}

func TestFiltersAndPages(t *testing.T) {
	c := start(t, awstest.Knobs{})
	var all []string
	for i := range 12 {
		all = append(all, c.snapshot(nil, func(in *ebs.StartSnapshotInput) {
			in.Tags = ebsTags("number", fmt.Sprint(i), "slipway", "yes")
			in.VolumeSize = aws.Int64(int64(i/6 + 1))
		}))
	}
	slices.Sort(all)
	list := func(filters ...string) (out []string) {
		in := &ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}, MaxResults: aws.Int32(5)}
		for pair := range slices.Chunk(filters, 2) {
			in.Filters = append(in.Filters, ec2types.Filter{Name: &pair[0], Values: strings.Split(pair[1], ",")})
		}
		pages := ec2.NewDescribeSnapshotsPaginator(c.ec2, in)
		for pages.HasMorePages() {
			page := must(pages.NextPage(c.ctx)).Snapshots
			if len(page) > 5 {
				t.Errorf("a page of %d", len(page))
			}
			for _, p := range page {
				out = append(out, *p.SnapshotId)
			}
		}
		return out
	}
	if got := list(); !slices.Equal(got, all) {
		t.Errorf("all snapshots: %v", got)
	}
	for _, test := range []struct {
		filters []string
		want    int
	}{
		{[]string{"tag:number", "3"}, 1},
		{[]string{"tag:number", "3,4"}, 2},
		{[]string{"tag:number", "1*"}, 3},
		{[]string{"tag:number", "1?"}, 2},
		{[]string{"tag-key", "slipway", "volume-size", "2"}, 6},
		{[]string{"status", "pending"}, 0},
		{[]string{"tag:other", "*"}, 0},
	} {
		if got := list(test.filters...); len(got) != test.want {
			t.Errorf("%v gives %d, not %d", test.filters, len(got), test.want)
		}
	}
	if got := must(c.ec2.DescribeSnapshots(c.ctx, &ec2.DescribeSnapshotsInput{OwnerIds: []string{"amazon"}})).Snapshots; len(got) != 0 {
		t.Errorf("Amazon's snapshots: %d", len(got))
	}
	c.clean()
	_, err := c.ec2.DescribeSnapshots(c.ctx, &ec2.DescribeSnapshotsInput{Filters: []ec2types.Filter{{Name: aws.String("colour"), Values: []string{"red"}}}})
	if code(err) != "InvalidParameterValue" {
		t.Error(err)
	}
	c.violated("the filter 'colour' is invalid")
}

func TestTags(t *testing.T) {
	c := start(t, awstest.Knobs{})
	id := c.snapshot(nil, func(in *ebs.StartSnapshotInput) { in.Tags = ebsTags("a", "1") })
	tag := func(key, value string) []ec2types.Tag { return []ec2types.Tag{{Key: &key, Value: &value}} }
	must(c.ec2.CreateTags(c.ctx, &ec2.CreateTagsInput{Resources: []string{id}, Tags: append(tag("a", "2"), tag("b", "")...)}))
	must(c.ec2.DeleteTags(c.ctx, &ec2.DeleteTagsInput{Resources: []string{id}, Tags: tag("a", "not this")}))
	if got := c.fake.Snapshots()[0].Tags; len(got) != 2 || got["a"] != "2" {
		t.Errorf("tags are %v", got)
	}
	must(c.ec2.DeleteTags(c.ctx, &ec2.DeleteTagsInput{Resources: []string{id}, Tags: []ec2types.Tag{{Key: aws.String("a")}}}))
	if got := c.fake.Snapshots()[0].Tags; len(got) != 1 {
		t.Errorf("tags are %v", got)
	}
	if _, err := c.ec2.CreateTags(c.ctx, &ec2.CreateTagsInput{Resources: []string{"ami-0"}, Tags: tag("a", "1")}); code(err) != "InvalidAMIID.NotFound" {
		t.Error(err)
	}
	c.clean()
}

func TestCopyImage(t *testing.T) {
	c := start(t, awstest.Knobs{Settle: time.Hour})
	id := c.snapshot(map[int32][]byte{1: noise(1, awstest.BlockSize)}, nil)
	c.fake.Advance(time.Hour)
	ami := *must(c.ec2.RegisterImage(c.ctx, imageInput("machine", id))).ImageId
	there := c.in("eu-west-1")
	in := &ec2.CopyImageInput{
		Name: aws.String("machine"), SourceImageId: &ami, SourceRegion: aws.String(awstest.Region), ClientToken: aws.String("once"),
		CopyImageTags: aws.Bool(true), Encrypted: aws.Bool(true),
		TagSpecifications: []ec2types.TagSpecification{{
			ResourceType: ec2types.ResourceTypeSnapshot, Tags: []ec2types.Tag{{Key: aws.String("copy"), Value: aws.String("1")}},
		}},
	}
	if _, err := there.ec2.CopyImage(c.ctx, in); code(err) != "InvalidAMIID.Unavailable" {
		t.Errorf("copy of a pending image: %v", err)
	}
	c.fake.Advance(time.Hour)
	copied, again := must(there.ec2.CopyImage(c.ctx, in)), must(there.ec2.CopyImage(c.ctx, in))
	if *copied.ImageId != *again.ImageId {
		t.Errorf("the token made %s and %s", *copied.ImageId, *again.ImageId)
	}
	c.fake.Advance(time.Hour)
	im := must(there.ec2.DescribeImages(c.ctx, &ec2.DescribeImagesInput{ImageIds: []string{*copied.ImageId}})).Images[0]
	device := im.BlockDeviceMappings[0].Ebs
	if im.State != "available" || *im.SourceImageId != ami || *im.SourceImageRegion != awstest.Region || !*device.Encrypted || len(im.Tags) != 1 {
		t.Errorf("the copy is %+v", im)
	}
	if !bytes.Equal(there.disk(*device.SnapshotId), c.disk(id)) {
		t.Error("the copy is a different disk")
	}
	for _, p := range c.fake.Snapshots() {
		if p.Region == "eu-west-1" && p.Tags["copy"] != "1" {
			t.Errorf("the copy's snapshot has tags %v", p.Tags)
		}
	}
	c.clean()
	in.Description = aws.String("another")
	if _, err := there.ec2.CopyImage(c.ctx, in); code(err) != "IdempotentParameterMismatch" {
		t.Error(err)
	}
	c.violated("used with different parameters")
}

func TestCopySnapshot(t *testing.T) {
	c := start(t, awstest.Knobs{})
	id := c.snapshot(map[int32][]byte{1: noise(1, awstest.BlockSize)}, nil)
	there := c.in("eu-west-1")
	copied := *must(there.ec2.CopySnapshot(c.ctx, &ec2.CopySnapshotInput{SourceSnapshotId: &id, SourceRegion: aws.String(awstest.Region)})).SnapshotId
	if !bytes.Equal(there.disk(copied), c.disk(id)) {
		t.Error("the copy is a different disk")
	}
	c.clean()
}

func TestShareAndDeprecate(t *testing.T) {
	c := start(t, awstest.Knobs{BlockPublicAccess: true})
	id := c.snapshot(nil, nil)
	ami := *must(c.ec2.RegisterImage(c.ctx, imageInput("machine", id))).ImageId
	add := func(permissions ...ec2types.LaunchPermission) *ec2.ModifyImageAttributeInput {
		return &ec2.ModifyImageAttributeInput{ImageId: &ami, LaunchPermission: &ec2types.LaunchPermissionModifications{Add: permissions}}
	}
	org := "arn:aws:organizations::" + awstest.Account + ":organization/o-abcdefghij"
	must(c.ec2.ModifyImageAttribute(c.ctx, add(ec2types.LaunchPermission{UserId: aws.String("210987654321")}, ec2types.LaunchPermission{OrganizationArn: &org})))
	must(c.ec2.ModifyImageAttribute(c.ctx, &ec2.ModifyImageAttributeInput{ImageId: &ami, Attribute: aws.String("description"), Value: aws.String("new")}))
	all := add(ec2types.LaunchPermission{Group: ec2types.PermissionGroupAll})
	if _, err := c.ec2.ModifyImageAttribute(c.ctx, all); code(err) != "OperationNotPermitted" {
		t.Errorf("public sharing while it is blocked: %v", err)
	}
	if state := *must(c.ec2.GetImageBlockPublicAccessState(c.ctx, &ec2.GetImageBlockPublicAccessStateInput{})).ImageBlockPublicAccessState; state != "block-new-sharing" {
		t.Errorf("public access is %s", state)
	}
	c.fake.SetKnobs(awstest.Knobs{})
	must(c.ec2.ModifyImageAttribute(c.ctx, all))
	shared := must(c.ec2.DescribeImageAttribute(c.ctx, &ec2.DescribeImageAttributeInput{ImageId: &ami, Attribute: ec2types.ImageAttributeNameLaunchPermission})).LaunchPermissions
	if len(shared) != 3 || *shared[0].UserId != "210987654321" || shared[1].Group != "all" || *shared[2].OrganizationArn != org {
		t.Errorf("shared with %+v", shared)
	}
	must(c.ec2.ModifySnapshotAttribute(c.ctx, &ec2.ModifySnapshotAttributeInput{
		SnapshotId: &id, Attribute: ec2types.SnapshotAttributeNameCreateVolumePermission, OperationType: ec2types.OperationTypeAdd, UserIds: []string{"210987654321"},
	}))
	volumes := must(c.ec2.DescribeSnapshotAttribute(c.ctx, &ec2.DescribeSnapshotAttributeInput{SnapshotId: &id, Attribute: ec2types.SnapshotAttributeNameCreateVolumePermission}))
	if len(volumes.CreateVolumePermissions) != 1 {
		t.Errorf("the snapshot is shared with %+v", volumes.CreateVolumePermissions)
	}

	at := time.Now().AddDate(1, 0, 0)
	must(c.ec2.EnableImageDeprecation(c.ctx, &ec2.EnableImageDeprecationInput{ImageId: &ami, DeprecateAt: &at}))
	im := must(c.ec2.DescribeImages(c.ctx, &ec2.DescribeImagesInput{Owners: []string{"self"}})).Images[0]
	if im.DeprecationTime == nil || !*im.Public || *im.Description != "new" {
		t.Errorf("the image is %+v", im)
	}
	must(c.ec2.EnableImageDeregistrationProtection(c.ctx, &ec2.EnableImageDeregistrationProtectionInput{ImageId: &ami}))
	if _, err := c.ec2.DeregisterImage(c.ctx, &ec2.DeregisterImageInput{ImageId: &ami}); code(err) != "OperationNotPermitted" {
		t.Error(err)
	}
	must(c.ec2.DisableImageDeregistrationProtection(c.ctx, &ec2.DisableImageDeregistrationProtectionInput{ImageId: &ami}))
	must(c.ec2.DeregisterImage(c.ctx, &ec2.DeregisterImageInput{ImageId: &ami}))
	if orphans := c.fake.Orphans(); len(orphans) != 1 {
		t.Errorf("orphans are %v, not just the snapshot", orphans)
	}
	c.clean()
	late := time.Now().AddDate(11, 0, 0)
	second := *must(c.ec2.RegisterImage(c.ctx, imageInput("second", id))).ImageId
	if _, err := c.ec2.EnableImageDeprecation(c.ctx, &ec2.EnableImageDeprecationInput{ImageId: &second, DeprecateAt: &late}); code(err) != "InvalidParameterValue" {
		t.Error(err)
	}
	c.violated("is not within 10 years")
}

func TestFlap(t *testing.T) {
	c := start(t, awstest.Knobs{Flap: time.Minute})
	id := c.snapshot(nil, nil)
	ami := *must(c.ec2.RegisterImage(c.ctx, imageInput("machine", id))).ImageId
	count := func() (missing int) {
		for range 6 {
			if _, err := c.ec2.DescribeImages(c.ctx, &ec2.DescribeImagesInput{ImageIds: []string{ami}}); code(err) == "InvalidAMIID.NotFound" {
				missing++
			} else if err != nil {
				t.Error(err)
			}
		}
		return missing
	}
	if n := count(); n != 2 {
		t.Errorf("a new image was missing %d times of 6, not 2", n)
	}
	c.fake.Advance(time.Minute)
	if n := count(); n != 0 {
		t.Errorf("an old image was missing %d times", n)
	}
	c.clean()
}

func TestImportSnapshot(t *testing.T) {
	disk := append(noise(1, 3*awstest.BlockSize), 1, 2, 3)
	put := func(c *client) {
		c.fake.CreateBucket(awstest.Region, "disks")
		must(c.s3.PutObject(c.ctx, &s3.PutObjectInput{Bucket: aws.String("disks"), Key: aws.String("a/disk.raw"), Body: bytes.NewReader(disk)}))
	}
	input := func() *ec2.ImportSnapshotInput {
		return &ec2.ImportSnapshotInput{
			ClientToken: aws.String("once"),
			DiskContainer: &ec2types.SnapshotDiskContainer{
				Format: aws.String("RAW"), UserBucket: &ec2types.UserBucket{S3Bucket: aws.String("disks"), S3Key: aws.String("a/disk.raw")},
			},
			TagSpecifications: []ec2types.TagSpecification{{
				ResourceType: ec2types.ResourceTypeImportSnapshotTask, Tags: []ec2types.Tag{{Key: aws.String("a"), Value: aws.String("b")}},
			}},
		}
	}
	describe := func(c *client, id string) *ec2types.SnapshotTaskDetail {
		return must(c.ec2.DescribeImportSnapshotTasks(c.ctx, &ec2.DescribeImportSnapshotTasksInput{ImportTaskIds: []string{id}})).ImportSnapshotTasks[0].SnapshotTaskDetail
	}

	t.Run("success", func(t *testing.T) {
		c := start(t, awstest.Knobs{Settle: time.Hour})
		put(c)
		id := *must(c.ec2.ImportSnapshot(c.ctx, input())).ImportTaskId
		if again := *must(c.ec2.ImportSnapshot(c.ctx, input())).ImportTaskId; again != id {
			t.Errorf("the token made %s and %s", id, again)
		}
		c.fake.Advance(30 * time.Minute)
		if d := describe(c, id); *d.Status != "active" || *d.Progress != "50" || *d.StatusMessage != "converting" {
			t.Errorf("half way: %s, %s, %s", *d.Status, *d.Progress, *d.StatusMessage)
		}
		c.fake.Advance(30 * time.Minute)
		d := describe(c, id)
		if *d.Status != "completed" || d.SnapshotId == nil {
			t.Fatalf("at the end: %+v", d)
		}
		if got := c.disk(*d.SnapshotId); !bytes.Equal(got[:len(disk)], disk) || got[len(disk)] != 0 {
			t.Error("the snapshot is not the object")
		}
		if orphans := c.fake.Orphans(); len(orphans) != 2 || !strings.Contains(orphans[0], "s3://disks/a/disk.raw") {
			t.Errorf("orphans are %v", orphans)
		}
		if _, err := c.ec2.CancelImportTask(c.ctx, &ec2.CancelImportTaskInput{ImportTaskId: &id}); code(err) != "IncorrectState" {
			t.Error(err)
		}
		c.clean()
	})
	t.Run("failure", func(t *testing.T) {
		c := start(t, awstest.Knobs{ImportFailure: "ClientError: Disk validation failed"})
		put(c)
		id := *must(c.ec2.ImportSnapshot(c.ctx, input())).ImportTaskId
		if d := describe(c, id); *d.Status != "deleted" || *d.StatusMessage != "ClientError: Disk validation failed" || d.SnapshotId != nil {
			t.Errorf("%s: %s", *d.Status, *d.StatusMessage)
		}
		c.clean()
	})
	t.Run("object gone", func(t *testing.T) {
		c := start(t, awstest.Knobs{Settle: time.Hour})
		put(c)
		id := *must(c.ec2.ImportSnapshot(c.ctx, input())).ImportTaskId
		must(c.s3.DeleteObject(c.ctx, &s3.DeleteObjectInput{Bucket: aws.String("disks"), Key: aws.String("a/disk.raw")}))
		c.fake.Advance(time.Hour)
		if d := describe(c, id); *d.Status != "deleted" || !strings.Contains(*d.StatusMessage, "no such object") {
			t.Errorf("%s: %s", *d.Status, *d.StatusMessage)
		}
	})
	t.Run("cancel", func(t *testing.T) {
		c := start(t, awstest.Knobs{Settle: time.Hour})
		put(c)
		id := *must(c.ec2.ImportSnapshot(c.ctx, input())).ImportTaskId
		must(c.ec2.CancelImportTask(c.ctx, &ec2.CancelImportTaskInput{ImportTaskId: &id, CancelReason: aws.String("no more")}))
		if d := describe(c, id); *d.Status != "deleted" || *d.StatusMessage != "no more" {
			t.Errorf("%s: %s", *d.Status, *d.StatusMessage)
		}
		c.clean()
	})
	for name, change := range map[string]func(*client, *ec2.ImportSnapshotInput){
		"no role": func(_ *client, in *ec2.ImportSnapshotInput) { in.RoleName = aws.String("other") },
		"no bucket": func(_ *client, in *ec2.ImportSnapshotInput) {
			in.DiskContainer.UserBucket.S3Bucket = aws.String("other")
		},
		"no object":        func(_ *client, in *ec2.ImportSnapshotInput) { in.DiskContainer.UserBucket.S3Key = aws.String("other") },
		"bucket elsewhere": func(c *client, in *ec2.ImportSnapshotInput) { *c = *c.in("eu-west-1") },
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t, awstest.Knobs{})
			put(c)
			in := input()
			change(c, in)
			if _, err := c.ec2.ImportSnapshot(c.ctx, in); code(err) != "InvalidParameter" {
				t.Error(err)
			}
			c.clean()
		})
	}
}

func TestMalformedIDs(t *testing.T) {
	c := start(t, awstest.Knobs{})
	_, image := c.ec2.DescribeImages(c.ctx, &ec2.DescribeImagesInput{ImageIds: []string{"nonsense"}})
	_, snapshot := c.ec2.DeleteSnapshot(c.ctx, &ec2.DeleteSnapshotInput{SnapshotId: aws.String("ami-0")})
	_, resource := c.ec2.CreateTags(c.ctx, &ec2.CreateTagsInput{Resources: []string{"nonsense"}, Tags: []ec2types.Tag{{Key: aws.String("a"), Value: aws.String("b")}}})
	for want, err := range map[string]error{"InvalidAMIID.Malformed": image, "InvalidSnapshotID.Malformed": snapshot, "InvalidID": resource} {
		if code(err) != want {
			t.Errorf("%v, not %s", err, want)
		}
	}
	if n := len(c.fake.Violations()); n != 3 {
		t.Errorf("violations are %v", c.fake.Violations())
	}
}

func TestDescribeRegions(t *testing.T) {
	c := start(t, awstest.Knobs{})
	if got := must(c.ec2.DescribeRegions(c.ctx, &ec2.DescribeRegionsInput{RegionNames: []string{"eu-west-1"}})).Regions; len(got) != 1 {
		t.Errorf("regions are %v", got)
	}
	all := must(c.ec2.DescribeRegions(c.ctx, &ec2.DescribeRegionsInput{})).Regions
	if len(all) < 30 {
		t.Errorf("only %d regions", len(all))
	}
	for _, region := range all {
		if got := must(c.in(*region.RegionName).ec2.DescribeImages(c.ctx, &ec2.DescribeImagesInput{})).Images; len(got) > 0 {
			t.Errorf("images in %s: %v", *region.RegionName, got)
		}
	}
	if _, err := c.in("mars-north-1").ec2.DescribeRegions(c.ctx, &ec2.DescribeRegionsInput{}); code(err) != "AuthFailure" {
		t.Error(err)
	}
	if *must(c.ec2.GetEbsEncryptionByDefault(c.ctx, &ec2.GetEbsEncryptionByDefaultInput{})).EbsEncryptionByDefault {
		t.Error("snapshots are encrypted by default")
	}
	if key := *must(c.ec2.GetEbsDefaultKmsKeyId(c.ctx, &ec2.GetEbsDefaultKmsKeyIdInput{})).KmsKeyId; key != "alias/aws/ebs" {
		t.Errorf("the default key is %s", key)
	}
	c.clean()
}
