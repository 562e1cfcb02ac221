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

// volume returns the fields of RegisterImage that describe the root volume.
func volume(v types.EbsBlockDevice) ec2.RegisterImageInput {
	return ec2.RegisterImageInput{BlockDeviceMappings: []types.BlockDeviceMapping{{DeviceName: aws.String("/dev/xvda"), Ebs: &v}}}
}

// TestRefusedBeforeUpload publishes with options that AWS would refuse after the
// upload. Both the dry run and the real run must refuse them first.
func TestRefusedBeforeUpload(t *testing.T) {
	t.Parallel()
	many := map[string]string{}
	for i := range 46 {
		many[strings.Repeat("x", i+1)] = ""
	}
	const key = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-4333-8444-000000000001"
	for want, run := range map[string]struct {
		options ami.Options
		knobs   awstest.Knobs
	}{
		`unknown type "gp9"`:                    {options: ami.Options{VolumeType: "gp9"}},
		"cannot boot from a volume":             {options: ami.Options{VolumeType: "st1"}},
		"3000 to 80000 IOPS, not 50":            {options: ami.Options{Register: volume(types.EbsBlockDevice{Iops: aws.Int32(50)})}},
		"6000 IOPS require 12 GiB instead of 8": {options: ami.Options{Register: volume(types.EbsBlockDevice{Iops: aws.Int32(6000), VolumeSize: aws.Int32(8)})}},
		"at most 50 IOPS per GiB":               {options: ami.Options{VolumeType: "io1", VolumeSize: 4, Register: volume(types.EbsBlockDevice{Iops: aws.Int32(1000)})}},
		"io2 requires Iops":                     {options: ami.Options{VolumeType: "io2", VolumeSize: 4}},
		"io1 has 4 to 16384 GiB, not 1":         {options: ami.Options{VolumeType: "io1"}},
		"1000 MiB/s requires 4000 IOPS":         {options: ami.Options{Register: volume(types.EbsBlockDevice{Throughput: aws.Int32(1000)})}},
		"gp2 does not support Throughput":       {options: ami.Options{VolumeType: "gp2", Register: volume(types.EbsBlockDevice{Throughput: aws.Int32(200)})}},
		"0 GiB is too small":                    {options: ami.Options{Register: volume(types.EbsBlockDevice{VolumeSize: aws.Int32(0)})}},
		"20000 GiB is too large":                {options: ami.Options{VolumeSize: 20000}},
		`invalid description "xxxx`:             {options: ami.Options{Register: ec2.RegisterImageInput{Description: aws.String(strings.Repeat("x", 256))}}},
		`invalid description "caf`:              {options: ami.Options{Register: ec2.RegisterImageInput{Description: aws.String("café")}}},
		`cannot share with "12345"`:             {options: ami.Options{Share: []string{"12345"}}},
		`cannot share with "arn:aws:iam:`:       {options: ami.Options{Share: []string{"arn:aws:iam::123456789012:root"}}},
		"invalid time to deprecation 10s":       {options: ami.Options{DeprecateAfter: 10 * time.Second}},
		"at most 2 years":                       {options: ami.Options{DeprecateAfter: 3 * 365 * 24 * time.Hour, Share: []string{"all"}}},
		"cannot be shared with all: omit":       {options: ami.Options{Share: []string{"all"}, KMSKey: key}},
		"us-east-1 encrypts all new snapshots":  {options: ami.Options{Share: []string{"all"}}, knobs: awstest.Knobs{EncryptByDefault: true}},
		"default key alias/aws/ebs":             {options: ami.Options{Share: []string{"111122223333"}, Encrypt: true}},
		"default key alias/aws/ebs in us-east":  {options: ami.Options{Share: []string{"111122223333"}}, knobs: awstest.Knobs{EncryptByDefault: true}},
		"46 tags are too many":                  {options: ami.Options{Tags: many}},
		`invalid tag "aws:x"`:                   {options: ami.Options{Tags: map[string]string{"aws:x": ""}}},
		`invalid tag "slipway:token"`:           {options: ami.Options{Tags: map[string]string{"slipway:token": ""}}},
		"the role importer does not exist":      {options: ami.Options{Method: ami.MethodImport, Bucket: "disks", Role: "importer"}},
		"the bucket nowhere does not exist":     {options: ami.Options{Method: ami.MethodImport, Bucket: "nowhere"}},
		"the bucket abroad is in eu-west-1":     {options: ami.Options{Method: ami.MethodImport, Bucket: "abroad"}},
		"check the import of the snapshot":      {options: ami.Options{Method: ami.MethodImport, Bucket: "disks"}, knobs: awstest.Knobs{Denied: []string{"ec2:ImportSnapshot"}}},
		"check the copy of the image":           {options: ami.Options{Copy: true, Regions: []string{home, "eu-west-1"}}, knobs: awstest.Knobs{Denied: []string{"ec2:CopyImage"}}},
		"read the parameter /machine":           {options: ami.Options{SSMParameter: "/machine"}, knobs: awstest.Knobs{Denied: []string{"ssm:GetParameter"}}},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			fake := start(t, run.knobs)
			fake.CreateBucket(home, "disks")
			fake.CreateBucket("eu-west-1", "abroad")
			d := write(t, content(1, 2))
			check := func(how string, err error) {
				if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
					t.Errorf("%s: got %v, want one line with %q", how, err, want)
				}
				if class := ami.ClassOf(err); class != ami.ClassUsage && class != ami.ClassPermission {
					t.Errorf("%s: class %d", how, class)
				}
			}
			o := run.options
			o.Name, o.State = "machine-1", t.TempDir()
			p, err := ami.New(d, o)
			if err == nil {
				_, err = p.Preflight(t.Context(), configure(t, fake))
			}
			check("dry run", err)
			_, err = publish(t.Context(), t, fake, d, o)
			check("real run", err)
			if slices.ContainsFunc(fake.Requests(), func(r awstest.Request) bool {
				return r.Service == "ebs" || r.Service == "s3" && r.Operation != "HeadBucket"
			}) {
				t.Error("data was sent to AWS")
			}
			empty(t, fake, o.State)
		})
	}
}

// TestPreflightWithTags checks that the dry run sends the tags of the real
// request, which policies can require.
func TestPreflightWithTags(t *testing.T) {
	t.Parallel()
	const allow = `{"Version": "2012-10-17", "Statement": [
		{"Effect": "Allow", "Action": "*", "Resource": "*"},
		{"Effect": "Deny", "Action": "ec2:RegisterImage", "Resource": "arn:aws:ec2:*::image/*",
		 "Condition": {"StringNotEquals": {"aws:RequestTag/Team": "infra"}}}]}`
	for team, want := range map[string]ami.Class{"infra": 0, "sales": ami.ClassPermission} {
		fake := start(t, awstest.Knobs{Policies: []string{allow}})
		o := ami.Options{Name: "machine-1", State: t.TempDir(), Tags: map[string]string{"Team": team}}
		p, err := ami.New(write(t, content(1, 2)), o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Preflight(t.Context(), configure(t, fake)); err == nil && want != 0 || err != nil && ami.ClassOf(err) != want {
			t.Errorf("%s: got %v", team, err)
		}
	}
}
