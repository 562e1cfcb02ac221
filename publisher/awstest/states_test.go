package awstest_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/slipway-build/slipway/publisher/awstest"
)

// A disabled image is hidden and private, and still holds its name and
// snapshot.
func TestDisabledImage(t *testing.T) {
	c := start(t, awstest.Knobs{})
	snapshot := c.snapshot(nil, nil)
	image := must(c.ec2.RegisterImage(c.ctx, imageInput("machine", snapshot))).ImageId
	share := &ec2.ModifyImageAttributeInput{ImageId: image, LaunchPermission: &ec2types.LaunchPermissionModifications{
		Add: []ec2types.LaunchPermission{{UserId: aws.String("210987654321")}},
	}}
	must(c.ec2.ModifyImageAttribute(c.ctx, share))
	must(c.ec2.DisableImage(c.ctx, &ec2.DisableImageInput{ImageId: image}))

	for name, in := range map[string]*ec2.DescribeImagesInput{"by owner": {Owners: []string{"self"}}, "by ID": {ImageIds: []string{*image}}} {
		if list := must(c.ec2.DescribeImages(c.ctx, in)).Images; len(list) != 0 {
			t.Errorf("%s, by default: %+v", name, list)
		}
		in.IncludeDisabled = aws.Bool(true)
		if list := must(c.ec2.DescribeImages(c.ctx, in)).Images; len(list) != 1 || list[0].State != ec2types.ImageStateDisabled {
			t.Errorf("%s, with IncludeDisabled: %+v", name, list)
		}
	}
	permissions := must(c.ec2.DescribeImageAttribute(c.ctx, &ec2.DescribeImageAttributeInput{ImageId: image, Attribute: "launchPermission"}))
	if len(permissions.LaunchPermissions) != 0 {
		t.Errorf("still shared with %+v", permissions.LaunchPermissions)
	}
	_, again := c.ec2.RegisterImage(c.ctx, imageInput("machine", snapshot))
	_, shared := c.ec2.ModifyImageAttribute(c.ctx, share)
	_, copied := c.in("eu-west-1").ec2.CopyImage(c.ctx, &ec2.CopyImageInput{Name: aws.String("copy"), SourceImageId: image, SourceRegion: aws.String(awstest.Region)})
	_, deleted := c.ec2.DeleteSnapshot(c.ctx, &ec2.DeleteSnapshotInput{SnapshotId: &snapshot})
	_, started := c.ec2.RunInstances(c.ctx, runInput(*image))
	for want, err := range map[string][]error{
		"InvalidAMIName.Duplicate": {again}, "OperationNotPermitted": {shared}, "InvalidAMIID.Unavailable": {copied, started}, "InvalidSnapshot.InUse": {deleted},
	} {
		for _, err := range err {
			if code(err) != want {
				t.Errorf("%v, not %s", err, want)
			}
		}
	}
	must(c.ec2.EnableImage(c.ctx, &ec2.EnableImageInput{ImageId: image}))
	must(c.ec2.ModifyImageAttribute(c.ctx, share))
	c.clean()
}

// An archived snapshot exists, but cannot be read, copied or registered.
func TestArchivedSnapshot(t *testing.T) {
	c := start(t, awstest.Knobs{})
	id := c.snapshot(map[int32][]byte{0: noise(1, awstest.BlockSize)}, nil)
	image := must(c.ec2.RegisterImage(c.ctx, imageInput("machine", id))).ImageId
	archive := func() error {
		_, err := c.ec2.ModifySnapshotTier(c.ctx, &ec2.ModifySnapshotTierInput{SnapshotId: &id, StorageTier: ec2types.TargetStorageTierArchive})
		return err
	}
	if err := archive(); code(err) != "InvalidSnapshot.InUse" {
		t.Errorf("archive the snapshot of an enabled image: %v", err)
	}
	must(c.ec2.DisableImage(c.ctx, &ec2.DisableImageInput{ImageId: image}))
	if err := archive(); err != nil {
		t.Fatal(err)
	}
	tier := func() ec2types.StorageTier {
		return must(c.ec2.DescribeSnapshots(c.ctx, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{id}})).Snapshots[0].StorageTier
	}
	if got := tier(); got != "archive" {
		t.Errorf("the tier is %s", got)
	}
	_, listed := c.ebs.ListSnapshotBlocks(c.ctx, &ebs.ListSnapshotBlocksInput{SnapshotId: &id})
	_, copied := c.in("eu-west-1").ec2.CopySnapshot(c.ctx, &ec2.CopySnapshotInput{SourceSnapshotId: &id, SourceRegion: aws.String(awstest.Region)})
	_, registered := c.ec2.RegisterImage(c.ctx, imageInput("other", id))
	for i, err := range []error{listed, copied, registered} {
		if want := []string{"ValidationException", "IncorrectState", "IncorrectState"}[i]; code(err) != want {
			t.Errorf("%v, not %s", err, want)
		}
	}
	must(c.ec2.RestoreSnapshotTier(c.ctx, &ec2.RestoreSnapshotTierInput{SnapshotId: &id, TemporaryRestoreDays: aws.Int32(2)}))
	if got := tier(); got != "standard" {
		t.Errorf("after the restore, the tier is %s", got)
	}
	c.fake.Advance(49 * time.Hour)
	if got := tier(); got != "archive" {
		t.Errorf("after a temporary restore, the tier is %s", got)
	}
	c.clean()
}

// A locked snapshot cannot be deleted until its lock expires or is removed.
func TestLockedSnapshot(t *testing.T) {
	c := start(t, awstest.Knobs{})
	id := c.snapshot(nil, nil)
	remove := func() error {
		_, err := c.ec2.DeleteSnapshot(c.ctx, &ec2.DeleteSnapshotInput{SnapshotId: &id})
		return err
	}
	unlock := func() error {
		_, err := c.ec2.UnlockSnapshot(c.ctx, &ec2.UnlockSnapshotInput{SnapshotId: &id})
		return err
	}
	lock := func(mode ec2types.LockMode, days, hours int32) ec2types.LockState {
		in := &ec2.LockSnapshotInput{SnapshotId: &id, LockMode: mode, LockDuration: &days}
		if hours > 0 {
			in.CoolOffPeriod = &hours
		}
		return must(c.ec2.LockSnapshot(c.ctx, in)).LockState
	}
	if state := lock("governance", 1, 0); state != "governance" || code(remove()) != "OperationNotPermitted" {
		t.Errorf("state %s", state)
	}
	if err := unlock(); err != nil {
		t.Error(err)
	}
	if state := lock("compliance", 2, 1); state != "compliance-cooloff" {
		t.Errorf("state %s", state)
	}
	if err := unlock(); err != nil {
		t.Error(err)
	}
	lock("compliance", 2, 1)
	c.fake.Advance(2 * time.Hour)
	if err := unlock(); code(err) != "OperationNotPermitted" {
		t.Errorf("unlock after the cooling-off period: %v", err)
	}
	if _, err := c.ec2.LockSnapshot(c.ctx, &ec2.LockSnapshotInput{SnapshotId: &id, LockMode: "compliance", LockDuration: aws.Int32(1)}); code(err) != "OperationNotPermitted" {
		t.Errorf("shorten the lock: %v", err)
	}
	image := must(c.ec2.RegisterImage(c.ctx, imageInput("machine", id))).ImageId
	out := must(c.ec2.DeregisterImage(c.ctx, &ec2.DeregisterImageInput{ImageId: image, DeleteAssociatedSnapshots: aws.Bool(true)}))
	if len(out.DeleteSnapshotResults) != 1 || out.DeleteSnapshotResults[0].ReturnCode != "client-error" {
		t.Errorf("deregistered with %+v", out.DeleteSnapshotResults)
	}
	c.fake.Advance(48 * time.Hour)
	if err := remove(); err != nil {
		t.Errorf("after the lock expired: %v", err)
	}
	c.clean()
}

func TestSessionToken(t *testing.T) {
	c := start(t, awstest.Knobs{SessionToken: "first"})
	if env := c.fake.Env(); !slices.Contains(env, "AWS_SESSION_TOKEN=first") {
		t.Errorf("the environment is %v", env)
	}
	call := func(token string) error {
		conf := c.conf
		conf.Credentials = aws.CredentialsProviderFunc(func(ctx context.Context) (aws.Credentials, error) {
			creds, err := c.conf.Credentials.Retrieve(ctx)
			creds.SessionToken = token
			return creds, err
		})
		_, err := sts.NewFromConfig(conf).GetCallerIdentity(c.ctx, &sts.GetCallerIdentityInput{})
		return err
	}
	if err := call("first"); err != nil {
		t.Error(err)
	}
	if err := call(""); code(err) != "InvalidClientTokenId" {
		t.Errorf("without the token: %v", err)
	}
	c.fake.SetKnobs(awstest.Knobs{SessionToken: "second"})
	if err := call("first"); code(err) != "ExpiredToken" {
		t.Errorf("with the old token: %v", err)
	}
	c.fake.SetKnobs(awstest.Knobs{})
	if err := call("second"); code(err) != "InvalidClientTokenId" {
		t.Errorf("a token with permanent credentials: %v", err)
	}
	c.clean()
}

func TestNotOptedIn(t *testing.T) {
	c := start(t, awstest.Knobs{NotOptedIn: []string{"af-south-1"}})
	status := func(all bool) string {
		for _, region := range must(c.ec2.DescribeRegions(c.ctx, &ec2.DescribeRegionsInput{AllRegions: &all})).Regions {
			if *region.RegionName == "af-south-1" {
				return *region.OptInStatus
			}
		}
		return ""
	}
	if some, all := status(false), status(true); some != "" || all != "not-opted-in" {
		t.Errorf("listed as %q, with AllRegions as %q", some, all)
	}
	there := c.in("af-south-1")
	_, images := there.ec2.DescribeImages(c.ctx, &ec2.DescribeImagesInput{})
	_, snapshot := there.ebs.StartSnapshot(c.ctx, &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1)})
	if code(images) != "AuthFailure" || code(snapshot) != "UnrecognizedClientException" {
		t.Errorf("%v; %v", images, snapshot)
	}
	c.clean()
}

// An image under the account's default key cannot be shared; one under a
// customer managed key can.
func TestShareEncryptedImage(t *testing.T) {
	c := start(t, awstest.Knobs{})
	for key, want := range map[string]string{"": "InvalidParameter", "arn:aws:kms:us-east-1:" + awstest.Account + ":key/mine": ""} {
		snapshot := c.snapshot(nil, func(in *ebs.StartSnapshotInput) {
			if in.Encrypted = aws.Bool(true); key != "" {
				in.KmsKeyArn = &key
			}
		})
		image := must(c.ec2.RegisterImage(c.ctx, imageInput("machine "+want, snapshot))).ImageId
		_, err := c.ec2.ModifyImageAttribute(c.ctx, &ec2.ModifyImageAttributeInput{ImageId: image, LaunchPermission: &ec2types.LaunchPermissionModifications{
			Add: []ec2types.LaunchPermission{{UserId: aws.String("210987654321")}},
		}})
		if code(err) != want {
			t.Errorf("key %q: %v", key, err)
		}
	}
	c.clean()
}

// A protected image cannot be deregistered; with a cooldown, not for 24 hours
// after the protection was disabled either.
func TestDeregistrationProtection(t *testing.T) {
	c := start(t, awstest.Knobs{})
	for _, cooldown := range []bool{false, true} {
		image := must(c.ec2.RegisterImage(c.ctx, imageInput("machine", c.snapshot(nil, nil)))).ImageId
		deregister := func() error {
			_, err := c.ec2.DeregisterImage(c.ctx, &ec2.DeregisterImageInput{ImageId: image})
			return err
		}
		must(c.ec2.EnableImageDeregistrationProtection(c.ctx, &ec2.EnableImageDeregistrationProtectionInput{ImageId: image, WithCooldown: &cooldown}))
		if err := deregister(); code(err) != "OperationNotPermitted" {
			t.Errorf("protected: %v", err)
		}
		must(c.ec2.DisableImageDeregistrationProtection(c.ctx, &ec2.DisableImageDeregistrationProtectionInput{ImageId: image}))
		if cooldown {
			if err := deregister(); code(err) != "OperationNotPermitted" {
				t.Errorf("in the cooldown: %v", err)
			}
			c.fake.Advance(25 * time.Hour)
		}
		if err := deregister(); err != nil {
			t.Error(err)
		}
	}
	c.clean()
}

func TestLaunchTemplates(t *testing.T) {
	c := start(t, awstest.Knobs{})
	image := must(c.ec2.RegisterImage(c.ctx, imageInput("machine", c.snapshot(nil, nil)))).ImageId
	must(c.ssm.PutParameter(c.ctx, &ssm.PutParameterInput{Name: aws.String("/web"), Value: image, Type: "String"}))
	create := &ec2.CreateLaunchTemplateInput{LaunchTemplateName: aws.String("web"), LaunchTemplateData: &ec2types.RequestLaunchTemplateData{ImageId: aws.String("ami-1")}}
	id := must(c.ec2.CreateLaunchTemplate(c.ctx, create)).LaunchTemplate.LaunchTemplateId
	if _, err := c.ec2.CreateLaunchTemplate(c.ctx, create); code(err) != "InvalidLaunchTemplateName.AlreadyExistsException" {
		t.Errorf("the same name: %v", err)
	}
	must(c.ec2.CreateLaunchTemplateVersion(c.ctx, &ec2.CreateLaunchTemplateVersionInput{
		LaunchTemplateName: aws.String("web"), LaunchTemplateData: &ec2types.RequestLaunchTemplateData{ImageId: aws.String("resolve:ssm:/web")},
	}))
	if all := must(c.ec2.DescribeLaunchTemplates(c.ctx, &ec2.DescribeLaunchTemplatesInput{})).LaunchTemplates; len(all) != 1 || *all[0].LatestVersionNumber != 2 {
		t.Errorf("the templates are %+v", all)
	}
	for _, test := range []struct {
		versions []string
		resolve  bool
		want     []string
	}{
		{nil, false, []string{"resolve:ssm:/web", "ami-1"}},
		{[]string{"$Latest"}, true, []string{*image}},
		{[]string{"$Default"}, false, []string{"ami-1"}},
		{[]string{"1"}, true, []string{"ami-1"}},
	} {
		var got []string
		for _, v := range must(c.ec2.DescribeLaunchTemplateVersions(c.ctx, &ec2.DescribeLaunchTemplateVersionsInput{LaunchTemplateId: id, Versions: test.versions, ResolveAlias: &test.resolve})).LaunchTemplateVersions {
			got = append(got, *v.LaunchTemplateData.ImageId)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%v: %v, not %v", test.versions, got, test.want)
		}
	}
	if _, err := c.ec2.DescribeLaunchTemplateVersions(c.ctx, &ec2.DescribeLaunchTemplateVersionsInput{LaunchTemplateId: aws.String("lt-0")}); code(err) != "InvalidLaunchTemplateId.NotFound" {
		t.Errorf("no template: %v", err)
	}
	c.clean()
}

// A Spot Fleet names images or launch templates, not both, and what it names in
// a launch template has a version. A Spot Instance request names an image.
func TestSpot(t *testing.T) {
	c := start(t, awstest.Knobs{})
	request := func(change func(*ec2types.SpotFleetRequestConfigData)) (string, error) {
		config := &ec2types.SpotFleetRequestConfigData{
			IamFleetRole: aws.String("arn:aws:iam::" + awstest.Account + ":role/fleet"), TargetCapacity: aws.Int32(1),
			LaunchSpecifications: []ec2types.SpotFleetLaunchSpecification{{ImageId: aws.String("ami-0"), InstanceType: "t3.micro"}},
		}
		change(config)
		out, err := c.ec2.RequestSpotFleet(c.ctx, &ec2.RequestSpotFleetInput{SpotFleetRequestConfig: config})
		if err != nil {
			return "", err
		}
		return *out.SpotFleetRequestId, nil
	}
	must(c.ec2.CreateLaunchTemplate(c.ctx, &ec2.CreateLaunchTemplateInput{
		LaunchTemplateName: aws.String("web"), LaunchTemplateData: &ec2types.RequestLaunchTemplateData{ImageId: aws.String("ami-1")},
	}))
	template := func(name, version string) func(*ec2types.SpotFleetRequestConfigData) {
		return func(c *ec2types.SpotFleetRequestConfigData) {
			c.LaunchSpecifications = nil
			c.LaunchTemplateConfigs = []ec2types.LaunchTemplateConfig{{
				LaunchTemplateSpecification: &ec2types.FleetLaunchTemplateSpecification{LaunchTemplateName: &name, Version: aws.String(version)},
				Overrides:                   []ec2types.LaunchTemplateOverrides{{InstanceType: "t3.small"}},
			}}
		}
	}
	ids := []string{must(request(func(*ec2types.SpotFleetRequestConfigData) {})), must(request(template("web", "$Latest")))}
	page := must(c.ec2.DescribeSpotFleetRequests(c.ctx, &ec2.DescribeSpotFleetRequestsInput{MaxResults: aws.Int32(1)}))
	rest := must(c.ec2.DescribeSpotFleetRequests(c.ctx, &ec2.DescribeSpotFleetRequestsInput{NextToken: page.NextToken}))
	var images, templates []string
	for _, f := range slices.Concat(page.SpotFleetRequestConfigs, rest.SpotFleetRequestConfigs) {
		for _, s := range f.SpotFleetRequestConfig.LaunchSpecifications {
			images = append(images, *s.ImageId)
		}
		for _, s := range f.SpotFleetRequestConfig.LaunchTemplateConfigs {
			templates = append(templates, *s.LaunchTemplateSpecification.LaunchTemplateName)
		}
	}
	if !slices.Equal(images, []string{"ami-0"}) || !slices.Equal(templates, []string{"web"}) {
		t.Errorf("images %q, templates %q", images, templates)
	}
	canceled := must(c.ec2.CancelSpotFleetRequests(c.ctx, &ec2.CancelSpotFleetRequestsInput{SpotFleetRequestIds: append(ids[:1:1], "sfr-0"), TerminateInstances: aws.Bool(true)}))
	if len(canceled.SuccessfulFleetRequests) != 1 || len(canceled.UnsuccessfulFleetRequests) != 1 {
		t.Errorf("canceled %+v", canceled)
	}
	found := must(c.ec2.DescribeSpotFleetRequests(c.ctx, &ec2.DescribeSpotFleetRequestsInput{SpotFleetRequestIds: ids[:1]})).SpotFleetRequestConfigs
	if len(found) != 1 || found[0].SpotFleetRequestState != ec2types.BatchStateCancelled {
		t.Errorf("found %+v", found)
	}
	single := &ec2.RequestSpotInstancesInput{LaunchSpecification: &ec2types.RequestSpotLaunchSpecification{ImageId: aws.String("ami-2"), InstanceType: "t3.micro"}}
	_, once := c.ec2.RequestSpotInstances(c.ctx, single) // the fake has persistent ones only
	single.Type = "persistent"
	open := must(c.ec2.RequestSpotInstances(c.ctx, single)).SpotInstanceRequests[0].SpotInstanceRequestId
	filter := ec2types.Filter{Name: aws.String("state"), Values: []string{"open"}}
	if list := must(c.ec2.DescribeSpotInstanceRequests(c.ctx, &ec2.DescribeSpotInstanceRequestsInput{Filters: []ec2types.Filter{filter}})).SpotInstanceRequests; len(list) != 1 || *list[0].LaunchSpecification.ImageId != "ami-2" {
		t.Errorf("requests %+v", list)
	}
	must(c.ec2.CancelSpotInstanceRequests(c.ctx, &ec2.CancelSpotInstanceRequestsInput{SpotInstanceRequestIds: []string{*open}}))
	if list := must(c.ec2.DescribeSpotInstanceRequests(c.ctx, &ec2.DescribeSpotInstanceRequestsInput{Filters: []ec2types.Filter{filter}})).SpotInstanceRequests; len(list) != 0 {
		t.Errorf("canceled requests %+v", list)
	}
	_, gone := c.ec2.CancelSpotInstanceRequests(c.ctx, &ec2.CancelSpotInstanceRequestsInput{SpotInstanceRequestIds: []string{"sir-0"}})
	_, missing := c.ec2.DescribeSpotFleetRequests(c.ctx, &ec2.DescribeSpotFleetRequestsInput{SpotFleetRequestIds: []string{"sfr-0"}})
	_, neither := request(func(c *ec2types.SpotFleetRequestConfigData) { c.LaunchSpecifications = nil })
	_, both := request(func(c *ec2types.SpotFleetRequestConfigData) {
		specs := c.LaunchSpecifications
		template("web", "1")(c)
		c.LaunchSpecifications = specs
	})
	_, unknown := request(template("db", "1"))
	_, version := request(template("web", ""))
	for i, test := range []struct {
		err  error
		code string
	}{
		{missing, "InvalidSpotFleetRequestId.NotFound"}, {neither, "InvalidSpotFleetRequestConfig"}, {both, "InvalidSpotFleetRequestConfig"},
		{unknown, "InvalidLaunchTemplateId.NotFound"}, {version, "MissingParameter"},
		{once, "MissingParameter"}, {gone, "InvalidSpotInstanceRequestID.NotFound"},
	} {
		if code(test.err) != test.code {
			t.Errorf("%d: %v, not %s", i, test.err, test.code)
		}
	}
}
