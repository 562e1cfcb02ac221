package ami_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	scalingtypes "github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/slipway-build/slipway/publisher/ami"
	"github.com/slipway-build/slipway/publisher/awstest"
)

// Of the images with the prefix and tag, the last two stay, and all that
// something uses.
func TestRetention(t *testing.T) {
	fake := start(t, awstest.Knobs{})
	cfg := configure(t, fake)
	client, params := ec2.NewFromConfig(cfg), ssm.NewFromConfig(cfg)
	ids := map[string]string{}
	make := func(name string, o ami.Options) {
		o.Name = name
		ids[name] = mustPublish(t, fake, write(t, content(uint64(len(ids)), 2)), o).Images[0].Image
		fake.Advance(time.Second) // creation dates have milliseconds
	}
	team := map[string]string{"Team": "infra"}
	for n := range 11 {
		make(fmt.Sprint("web-", n), ami.Options{Tags: team})
	}
	make("web-other", ami.Options{})
	make("db-1", ami.Options{Tags: team})
	make("web-10b", ami.Options{Tags: team, Protection: ami.ProtectionCooldown})
	foreign, err := client.CopyImage(t.Context(), &ec2.CopyImageInput{
		Name: aws.String("web-foreign"), SourceImageId: aws.String(ids["web-0"]), SourceRegion: aws.String(home),
		TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeImage, Tags: []types.Tag{{Key: aws.String("Team"), Value: aws.String("infra")}}}},
	})
	if err != nil {
		t.Fatal(err)
	}

	instance := runInstance(t, fake, ids["web-1"])
	template, err := client.CreateLaunchTemplate(t.Context(), &ec2.CreateLaunchTemplateInput{
		LaunchTemplateName: aws.String("web"), LaunchTemplateData: &types.RequestLaunchTemplateData{ImageId: aws.String(ids["web-2"])},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CreateLaunchTemplateVersion(t.Context(), &ec2.CreateLaunchTemplateVersionInput{
		LaunchTemplateId: template.LaunchTemplate.LaunchTemplateId, LaunchTemplateData: &types.RequestLaunchTemplateData{ImageId: aws.String("resolve:ssm:/web")},
	}); err != nil {
		t.Fatal(err)
	}
	for name, image := range map[string]string{"/web": "web-10b", "plain": "web-3"} {
		if _, err := params.PutParameter(t.Context(), &ssm.PutParameterInput{Name: &name, Value: aws.String(ids[image]), Type: ssmtypes.ParameterTypeString}); err != nil {
			t.Fatal(err)
		}
	}
	groups := autoscaling.NewFromConfig(cfg)
	must(groups.CreateLaunchConfiguration(t.Context(), &autoscaling.CreateLaunchConfigurationInput{
		LaunchConfigurationName: aws.String("old"), ImageId: aws.String(ids["web-5"]), InstanceType: aws.String("t3.micro"),
	}))
	must(groups.CreateAutoScalingGroup(t.Context(), &autoscaling.CreateAutoScalingGroupInput{
		AutoScalingGroupName: aws.String("fleet"), MinSize: aws.Int32(0), MaxSize: aws.Int32(1), AvailabilityZones: []string{home + "a"},
		MixedInstancesPolicy: &scalingtypes.MixedInstancesPolicy{LaunchTemplate: &scalingtypes.LaunchTemplate{
			LaunchTemplateSpecification: &scalingtypes.LaunchTemplateSpecification{LaunchTemplateId: template.LaunchTemplate.LaunchTemplateId},
			Overrides:                   []scalingtypes.LaunchTemplateOverrides{{InstanceType: aws.String("t3.micro")}, {ImageId: aws.String(ids["web-7"])}},
		}},
	}))
	var fleetID, requestID string
	for _, kept := range []bool{true, false} { // a canceled fleet starts no instances
		image, spot := map[bool]string{true: "web-8", false: "web-0"}[kept], map[bool]string{true: "web-9", false: "web-0"}[kept]
		fleet := must(client.RequestSpotFleet(t.Context(), &ec2.RequestSpotFleetInput{SpotFleetRequestConfig: &types.SpotFleetRequestConfigData{
			IamFleetRole: aws.String("arn:aws:iam::" + awstest.Account + ":role/fleet"), TargetCapacity: aws.Int32(1),
			LaunchSpecifications: []types.SpotFleetLaunchSpecification{{ImageId: aws.String(ids[image]), InstanceType: types.InstanceTypeT3Micro}},
		}})).SpotFleetRequestId
		request := must(client.RequestSpotInstances(t.Context(), &ec2.RequestSpotInstancesInput{
			Type:                types.SpotInstanceTypePersistent,
			LaunchSpecification: &types.RequestSpotLaunchSpecification{ImageId: aws.String(ids[spot]), InstanceType: types.InstanceTypeT3Micro},
		})).SpotInstanceRequests[0].SpotInstanceRequestId
		if !kept {
			must(client.CancelSpotInstanceRequests(t.Context(), &ec2.CancelSpotInstanceRequestsInput{SpotInstanceRequestIds: []string{*request}}))
			must(client.CancelSpotFleetRequests(t.Context(), &ec2.CancelSpotFleetRequestsInput{SpotFleetRequestIds: []string{*fleet}, TerminateInstances: aws.Bool(true)}))
			continue
		}
		fleetID, requestID = *fleet, *request
	}
	if _, err := client.EnableImageDeregistrationProtection(t.Context(), &ec2.EnableImageDeregistrationProtectionInput{ImageId: aws.String(ids["web-4"])}); err != nil {
		t.Fatal(err)
	}
	// An image that shares its snapshot with another one.
	snapshot := snapshotOf(t, client, ids["web-6"])
	if _, err := client.RegisterImage(t.Context(), &ec2.RegisterImageInput{
		Name: aws.String("shared"), Architecture: types.ArchitectureValuesX8664, VirtualizationType: aws.String("hvm"), RootDeviceName: aws.String("/dev/xvda"), EnaSupport: aws.Bool(true),
		BlockDeviceMappings: []types.BlockDeviceMapping{{DeviceName: aws.String("/dev/xvda"), Ebs: &types.EbsBlockDevice{SnapshotId: &snapshot, VolumeType: types.VolumeTypeGp3}}},
	}); err != nil {
		t.Fatal(err)
	}

	o := ami.GCOptions{OlderThan: -time.Hour, DryRun: true, Retention: &ami.Retention{KeepLast: 2, NamePrefix: "web-", Tags: team}}
	check := func() {
		t.Helper()
		found, err := ami.GC(t.Context(), cfg, o)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, l := range found {
			for name, id := range ids {
				if id == l.ID {
					got = append(got, fmt.Sprint(name, " ", l.Kept, " ", strings.NewReplacer(instance, "I", fleetID, "F", requestID, "R").Replace(l.Why)))
				}
			}
		}
		slices.Sort(got)
		want := []string{
			"web-0 false image web-0 is not among the last 2", "web-1 true instance I uses it", "web-2 true version 1 of the launch template web uses it",
			"web-3 true the SSM parameter plain names it", "web-4 true it is protected from deregistration", "web-5 true the launch configuration old uses it",
			"web-6 false image web-6 is not among the last 2", "web-7 true the Auto Scaling group fleet uses it",
			"web-8 true the Spot Fleet F uses it", "web-9 true the Spot Instance request R uses it",
		}
		if !slices.Equal(got, want) {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
	check()
	gone := []string{"web-0", "web-6"}
	if images := len(must(client.DescribeImages(t.Context(), &ec2.DescribeImagesInput{Owners: []string{"self"}})).Images); images != len(ids)+2 {
		t.Errorf("the dry run left %d images", images)
	}
	for _, denied := range []string{"ec2:DescribeInstances", "ec2:DescribeLaunchTemplates", "ec2:DescribeLaunchTemplateVersions", "ssm:DescribeParameters", "ssm:GetParameters", "autoscaling:DescribeAutoScalingGroups", "autoscaling:DescribeLaunchConfigurations", "ec2:DescribeSpotFleetRequests", "ec2:DescribeSpotInstanceRequests"} {
		fake.SetKnobs(awstest.Knobs{Denied: []string{denied}})
		closed := o
		closed.DryRun = false
		if found, err := ami.GC(t.Context(), cfg, closed); ami.ClassOf(err) != ami.ClassPermission || len(found) > 0 {
			t.Errorf("without %s: %v, %v", denied, found, err)
		}
	}
	// A missing permission is told once.
	fake.SetKnobs(awstest.Knobs{Denied: []string{"ec2:DescribeImages"}})
	if _, err := ami.GC(t.Context(), cfg, ami.GCOptions{Regions: []string{home, "eu-west-1"}}); err == nil || strings.Count(err.Error(), "ec2:DescribeImages") != 1 {
		t.Errorf("two regions: %v", err)
	}
	fake.SetKnobs(awstest.Knobs{})
	o.DryRun = false
	check()
	left := must(client.DescribeImages(t.Context(), &ec2.DescribeImagesInput{Owners: []string{"self"}})).Images
	if len(left) != len(ids)+2-len(gone) || !slices.ContainsFunc(left, func(i types.Image) bool { return *i.ImageId == *foreign.ImageId }) {
		t.Errorf("%d images left", len(left))
	}
	for _, i := range left {
		if slices.Contains(gone, *i.Name) {
			t.Errorf("%s is left", *i.Name)
		}
	}
	noOrphans(t, fake)
	for _, r := range []ami.Retention{{KeepLast: 0, NamePrefix: "web-"}, {KeepLast: 1}} {
		if _, err := ami.GC(t.Context(), cfg, ami.GCOptions{Retention: &r}); ami.ClassOf(err) != ami.ClassUsage {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

func must[T any](out T, err error) T {
	if err != nil {
		panic(err)
	}
	return out
}

func snapshotOf(t *testing.T, client *ec2.Client, image string) string {
	t.Helper()
	return *must(client.DescribeImages(t.Context(), &ec2.DescribeImagesInput{ImageIds: []string{image}})).Images[0].BlockDeviceMappings[0].Ebs.SnapshotId
}

// A failure after the protection of one region ends the protection and undoes
// the publish.
func TestProtection(t *testing.T) {
	fake := start(t, awstest.Knobs{})
	d := write(t, content(1, 2))
	deny := `{"Statement": [{"Effect": "Allow", "Action": ["*"], "Resource": "*"},
		{"Effect": "Deny", "Action": "ec2:EnableImageDeregistrationProtection", "Resource": "*", "Condition": {"StringEquals": {"aws:RequestedRegion": "eu-west-1"}}}]}`
	fake.SetKnobs(awstest.Knobs{Policies: []string{deny}, Latency: time.Millisecond})
	o := ami.Options{Protection: ami.ProtectionOn, Regions: []string{home, "eu-west-1"}}
	if _, err := publish(t.Context(), t, fake, d, o); ami.ClassOf(err) != ami.ClassPermission || strings.Contains(err.Error(), "could not undo") {
		t.Errorf("got %v", err)
	}
	noOrphans(t, fake)
	if left := fake.Snapshots(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	fake.SetKnobs(awstest.Knobs{})
	mustPublish(t, fake, d, ami.Options{Regions: o.Regions})
	mustPublish(t, fake, d, o) // an existing image gets the protection
	mustPublish(t, fake, d, o)
	if n := fake.Count("ec2:EnableImageDeregistrationProtection"); n < 2+2 || n > 2+2 {
		t.Errorf("%d calls", n)
	}
	if _, err := publish(t.Context(), t, fake, d, ami.Options{Protection: "on"}); ami.ClassOf(err) != ami.ClassUsage {
		t.Errorf("got %v", err)
	}
}

// The preflight says that an account blocks public sharing.
func TestBlockPublicAccess(t *testing.T) {
	fake := start(t, awstest.Knobs{BlockPublicAccess: true})
	o := ami.Options{Share: []string{"all"}}
	if _, err := publish(t.Context(), t, fake, write(t, content(1, 2)), o); ami.ClassOf(err) != ami.ClassPermission || !strings.Contains(err.Error(), "blocks public access to") || len(fake.Snapshots()) > 0 {
		t.Errorf("got %v, snapshots %v", err, fake.Snapshots())
	}
	fake.SetKnobs(awstest.Knobs{Denied: []string{"ec2:GetImageBlockPublicAccessState", "ec2:GetSnapshotBlockPublicAccessState"}})
	mustPublish(t, fake, write(t, content(1, 2)), o)
}
