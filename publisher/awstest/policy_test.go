package awstest_test

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/slipway-build/slipway/publisher/awstest"
)

const testPolicy = `{
	"Version": "2012-10-17",
	"Statement": [
		{"Effect": "Allow", "Action": ["ebs:StartSnapshot", "ec2:RegisterImage"], "Resource": ["arn:aws:ec2:*::snapshot/*", "arn:aws:ec2:*::image/*"],
		 "Condition": {"StringEqualsIfExists": {"aws:RequestTag/team": "red"}, "ForAllValues:StringEquals": {"aws:TagKeys": ["team", "Name"]}}},
		{"Effect": "Allow", "Action": "ec2:CreateTags", "Resource": "*", "Condition": {"StringEquals": {"ec2:CreateAction": "RegisterImage"}}},
		{"Effect": "Allow", "Action": ["ebs:CompleteSnapshot", "ec2:DeleteSnapshot", "ec2:DeregisterImage"], "Resource": "*",
		 "Condition": {"Null": {"aws:ResourceTag/team": "false"}}},
		{"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*", "Condition": {"StringLike": {"aws:RequestedRegion": "us-*"}}},
		{"Effect": "Allow", "Action": "s3:*Object", "Resource": "arn:aws:s3:::disks/slipway-publish/*"},
		{"Effect": "Deny", "Action": "s3:DeleteObject", "Resource": "*"},
		{"Effect": "Allow", "Action": ["ec2:ImportSnapshot"], "Resource": "*"},
		{"Effect": "Allow", "Action": "iam:PassRole", "Resource": "arn:aws:iam::*:role/vmimport",
		 "Condition": {"StringEquals": {"iam:PassedToService": "vmie.amazonaws.com"}}},
		{"Effect": "Allow", "Action": "ssm:GetParameter", "Resource": "arn:aws:ssm:*:*:parameter/slipway/*"}
	]
}`

// Each call is allowed or denied by a different statement or condition.
func TestPolicies(t *testing.T) {
	c := start(t, awstest.Knobs{})
	c.fake.CreateBucket(awstest.Region, "disks")
	foreign := c.snapshot(nil, nil)
	own := c.snapshot(nil, func(in *ebs.StartSnapshotInput) { in.Tags = ebsTags("team", "red") })
	c.fake.SetKnobs(awstest.Knobs{Policies: []string{testPolicy}})

	startSnapshot := func(tags ...string) func() error {
		return func() error {
			_, err := c.ebs.StartSnapshot(c.ctx, &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1), Tags: ebsTags(tags...)})
			return err
		}
	}
	register := func(name, tag string, dry bool) func() error {
		in := imageInput(name, own)
		in.DryRun = &dry
		in.TagSpecifications[0].Tags = append(in.TagSpecifications[0].Tags, ec2types.Tag{Key: aws.String("team"), Value: &tag})
		return func() error { _, err := c.ec2.RegisterImage(c.ctx, in); return err }
	}
	describe := func(region string) func() error {
		return func() error { _, err := c.in(region).ec2.DescribeImages(c.ctx, &ec2.DescribeImagesInput{}); return err }
	}
	put := func(key string) func() error {
		return func() error {
			_, err := c.s3.PutObject(c.ctx, &s3.PutObjectInput{Bucket: bucket, Key: &key, Body: strings.NewReader("x")})
			return err
		}
	}
	parameter := func(name string) func() error {
		return func() error { _, err := c.ssm.GetParameter(c.ctx, &ssm.GetParameterInput{Name: &name}); return err }
	}
	importAs := func(role string) func() error {
		return func() error {
			_, err := c.ec2.ImportSnapshot(c.ctx, &ec2.ImportSnapshotInput{RoleName: &role, DiskContainer: &ec2types.SnapshotDiskContainer{
				Format: aws.String("RAW"), UserBucket: &ec2types.UserBucket{S3Bucket: bucket, S3Key: aws.String("slipway-publish/a")},
			}})
			return err
		}
	}
	remove := func(id string) func() error {
		return func() error {
			_, err := c.ec2.DeleteSnapshot(c.ctx, &ec2.DeleteSnapshotInput{SnapshotId: &id})
			return err
		}
	}
	for _, test := range []struct {
		name string
		call func() error
		want string
	}{
		{"STS needs no permission", func() error { _, err := c.sts.GetCallerIdentity(c.ctx, &sts.GetCallerIdentityInput{}); return err }, ""},
		{"request tag", startSnapshot("team", "red"), ""},
		{"no request tag", startSnapshot(), ""},
		{"another request tag", startSnapshot("team", "blue"), "AccessDeniedException"},
		{"another tag key", startSnapshot("owner", "me"), "AccessDeniedException"},
		{"dry run", register("machine", "red", true), "DryRunOperation"},
		{"dry run with another tag", register("machine", "blue", true), "UnauthorizedOperation"},
		{"tags on creation", register("machine", "red", false), ""},
		{"tags afterwards", func() error {
			_, err := c.ec2.CreateTags(c.ctx, &ec2.CreateTagsInput{Resources: []string{own}, Tags: []ec2types.Tag{{Key: aws.String("team"), Value: aws.String("red")}}})
			return err
		}, "UnauthorizedOperation"},
		{"region", describe("us-west-2"), ""},
		{"another region", describe("eu-west-1"), "UnauthorizedOperation"},
		{"snapshot without the tag", remove(foreign), "UnauthorizedOperation"},
		{"snapshot with the tag", remove(own), "InvalidSnapshot.InUse"},
		{"object", put("slipway-publish/a"), ""},
		{"another object", put("a"), "AccessDenied"},
		{"explicit deny", func() error {
			_, err := c.s3.DeleteObject(c.ctx, &s3.DeleteObjectInput{Bucket: bucket, Key: aws.String("slipway-publish/a")})
			return err
		}, "AccessDenied"},
		{"role", importAs("vmimport"), ""},
		{"another role", importAs("other"), "UnauthorizedOperation"},
		{"parameter", parameter("/slipway/machine"), "ParameterNotFound"},
		{"another parameter", parameter("/machine"), "AccessDeniedException"},
	} {
		if err := test.call(); code(err) != test.want {
			t.Errorf("%s: %v, not %q", test.name, err, test.want)
		}
	}
	c.clean()
}

func TestInvalidPolicies(t *testing.T) {
	fake := awstest.New(awstest.Knobs{})
	defer fake.Close()
	for want, text := range map[string]string{
		"unknown field":                    `{"Statement": [{"Effect": "Allow", "NotAction": "s3:*", "Resource": "*"}]}`,
		"not Allow or Deny":                `{"Statement": [{"Effect": "allow", "Action": "s3:*", "Resource": "*"}]}`,
		"does not implement the condition": `{"Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*", "Condition": {"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}}]}`,
	} {
		func() {
			defer func() {
				if err, ok := recover().(error); !ok || !strings.Contains(err.Error(), want) {
					t.Errorf("%v, not %s", err, want)
				}
			}()
			fake.SetKnobs(awstest.Knobs{Policies: []string{text}})
		}()
	}
}
