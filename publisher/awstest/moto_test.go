package awstest_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/slipway-build/slipway/internal/testutil/stack"
	"github.com/slipway-build/slipway/publisher/awstest"
)

// startMoto starts a server of moto and returns its URL. It skips the test if
// moto is not installed. The server belongs to the test alone: its state is
// global, so that another test would change it, and whoever shared a server
// could stop it.
func startMoto(t *testing.T) string {
	t.Helper()
	program := stack.File(t, "moto", "bin", "moto_server")
	listener, err := net.Listen("tcp", "127.0.0.1:0") // finds a free port
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	_, port, _ := net.SplitHostPort(address)
	cmd := exec.Command(program, "-H", "127.0.0.1", "-p", port)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("the end of moto's log: %s", log.Bytes()[max(0, log.Len()-2000):])
		}
	})
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return "http://" + address
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("moto ended: %v: %s", err, log.Bytes())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// The same calls to the fake and to moto, as far as moto implements them,
// return the same answers and errors.
func TestAgainstMoto(t *testing.T) {
	motoURL := startMoto(t)
	for name, scenario := range map[string]func(*script){
		"account": accountScript, "s3": s3Script, "multipart": multipartScript, "ebs": ebsScript, "ec2": ec2Script, "ssm": ssmScript,
	} {
		t.Run(name, func(t *testing.T) {
			fake := awstest.Start(t, awstest.Knobs{Roles: []string{}})
			ours := &script{client: connect(t, fake, config(fake.URL(), awstest.Region))}
			moto := &script{client: connect(t, fake, config(motoURL, awstest.Region))}
			scenario(ours)
			scenario(moto)
			for i := range max(len(ours.lines), len(moto.lines)) {
				if a, b := at(ours.lines, i), at(moto.lines, i); a != b {
					t.Errorf("awstest says %q\n   moto says %q", a, b)
				}
			}
			for _, v := range fake.Violations() {
				t.Error("violation:", v)
			}
		})
	}
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "nothing more"
}

// A script records the answers of one of the servers.
type script struct {
	*client
	lines []string
}

func (s *script) note(what string, values ...any) {
	s.lines = append(s.lines, strings.TrimSpace(what+" "+fmt.Sprintln(values...)))
}

// prefix returns the kind of an ID.
func prefix(id *string) string {
	kind, _, _ := strings.Cut(aws.ToString(id), "-")
	return kind
}

func accountScript(s *script) {
	caller := must(s.sts.GetCallerIdentity(s.ctx, &sts.GetCallerIdentityInput{}))
	s.note("account", *caller.Account, strings.HasPrefix(*caller.Arn, "arn:aws:"))
	_, err := s.iam.GetRole(s.ctx, &iam.GetRoleInput{RoleName: aws.String("vmimport")})
	s.note("no role", code(err))
	regions := must(s.ec2.DescribeRegions(s.ctx, &ec2.DescribeRegionsInput{RegionNames: []string{"eu-west-1"}})).Regions
	s.note("regions", len(regions), *regions[0].RegionName, *regions[0].OptInStatus)
	s.note("encryption", *must(s.ec2.GetEbsEncryptionByDefault(s.ctx, &ec2.GetEbsEncryptionByDefaultInput{})).EbsEncryptionByDefault)
}

func s3Script(s *script) {
	name, key, data := aws.String("slipway-objects"), aws.String("dir/a b+c"), noise(1, 100000)
	_, err := s.s3.HeadBucket(s.ctx, &s3.HeadBucketInput{Bucket: name})
	s.note("no bucket", code(err))
	_, err = s.s3.PutObject(s.ctx, &s3.PutObjectInput{Bucket: name, Key: key, Body: bytes.NewReader(data)})
	s.note("put without bucket", code(err))
	must(s.s3.CreateBucket(s.ctx, &s3.CreateBucketInput{Bucket: name}))
	head := must(s.s3.HeadBucket(s.ctx, &s3.HeadBucketInput{Bucket: name}))
	s.note("bucket", aws.ToString(head.BucketRegion))
	s.note("location", must(s.s3.GetBucketLocation(s.ctx, &s3.GetBucketLocationInput{Bucket: name})).LocationConstraint)
	put := must(s.s3.PutObject(s.ctx, &s3.PutObjectInput{Bucket: name, Key: key, Body: bytes.NewReader(data), ContentType: aws.String("application/x-raw")}))
	s.note("put", *put.ETag) // moto does not return the checksum
	object := must(s.s3.HeadObject(s.ctx, &s3.HeadObjectInput{Bucket: name, Key: key}))
	s.note("head", *object.ContentLength, *object.ETag, *object.ContentType)
	part := must(s.s3.GetObject(s.ctx, &s3.GetObjectInput{Bucket: name, Key: key, Range: aws.String("bytes=10-19")}))
	s.note("range", must(io.ReadAll(part.Body)), *part.ContentRange)
	list := must(s.s3.ListObjectsV2(s.ctx, &s3.ListObjectsV2Input{Bucket: name, Prefix: aws.String("dir/")}))
	s.note("list", *list.KeyCount, *list.IsTruncated, *list.Contents[0].Key, *list.Contents[0].Size, *list.Contents[0].ETag)
	_, err = s.s3.DeleteBucket(s.ctx, &s3.DeleteBucketInput{Bucket: name})
	s.note("bucket not empty", code(err))
	for range 2 { // deleting a missing object succeeds
		must(s.s3.DeleteObject(s.ctx, &s3.DeleteObjectInput{Bucket: name, Key: key}))
	}
	_, err = s.s3.GetObject(s.ctx, &s3.GetObjectInput{Bucket: name, Key: key})
	s.note("no object", code(err))
	_, err = s.s3.HeadObject(s.ctx, &s3.HeadObjectInput{Bucket: name, Key: key})
	s.note("head of no object", code(err))
	must(s.s3.DeleteBucket(s.ctx, &s3.DeleteBucketInput{Bucket: name}))
}

func multipartScript(s *script) {
	name, key, data := aws.String("slipway-uploads"), aws.String("disk.raw"), noise(1, 7<<20)
	must(s.s3.CreateBucket(s.ctx, &s3.CreateBucketInput{Bucket: name}))
	id := must(s.s3.CreateMultipartUpload(s.ctx, &s3.CreateMultipartUploadInput{Bucket: name, Key: key})).UploadId
	var parts []s3types.CompletedPart
	for i, part := range [][]byte{data[:5<<20], data[5<<20:]} {
		number := aws.Int32(int32(i + 1))
		out := must(s.s3.UploadPart(s.ctx, &s3.UploadPartInput{Bucket: name, Key: key, UploadId: id, PartNumber: number, Body: bytes.NewReader(part)}))
		s.note("part", *out.ETag)
		parts = append(parts, s3types.CompletedPart{PartNumber: number, ETag: out.ETag, ChecksumCRC32: out.ChecksumCRC32})
	}
	for _, part := range must(s.s3.ListParts(s.ctx, &s3.ListPartsInput{Bucket: name, Key: key, UploadId: id})).Parts {
		s.note("listed", *part.PartNumber, *part.ETag, *part.Size)
	}
	uploads := must(s.s3.ListMultipartUploads(s.ctx, &s3.ListMultipartUploadsInput{Bucket: name})).Uploads
	s.note("uploads", len(uploads), *uploads[0].Key, *uploads[0].UploadId == *id)
	complete := &s3.CompleteMultipartUploadInput{Bucket: name, Key: key, UploadId: id, MultipartUpload: &s3types.CompletedMultipartUpload{Parts: parts}}
	s.note("completed", *must(s.s3.CompleteMultipartUpload(s.ctx, complete)).ETag)
	out := must(s.s3.GetObject(s.ctx, &s3.GetObjectInput{Bucket: name, Key: key}))
	s.note("object", bytes.Equal(must(io.ReadAll(out.Body)), data))
	id = must(s.s3.CreateMultipartUpload(s.ctx, &s3.CreateMultipartUploadInput{Bucket: name, Key: key})).UploadId
	must(s.s3.AbortMultipartUpload(s.ctx, &s3.AbortMultipartUploadInput{Bucket: name, Key: key, UploadId: id}))
	_, err := s.s3.AbortMultipartUpload(s.ctx, &s3.AbortMultipartUploadInput{Bucket: name, Key: key, UploadId: id})
	s.note("no upload", code(err))
	s.note("uploads", len(must(s.s3.ListMultipartUploads(s.ctx, &s3.ListMultipartUploadsInput{Bucket: name})).Uploads))
}

func ebsScript(s *script) {
	start := must(s.ebs.StartSnapshot(s.ctx, &ebs.StartSnapshotInput{VolumeSize: aws.Int64(3), Description: aws.String("a disk"), Tags: ebsTags("a", "b")}))
	// moto returns a block size of 512 bytes, but accepts other sizes.
	s.note("started", prefix(start.SnapshotId), start.Status, *start.VolumeSize, *start.OwnerId, *start.Description, *start.Tags[0].Key, start.StartTime != nil)
	blocks := map[int32][]byte{1: noise(1, awstest.BlockSize), 5: noise(2, awstest.BlockSize)}
	for _, index := range []int32{1, 5} {
		out := must(s.ebs.PutSnapshotBlock(s.ctx, putInput(*start.SnapshotId, index, blocks[index])))
		s.note("put", *out.Checksum, out.ChecksumAlgorithm)
	}
	must(s.ebs.CompleteSnapshot(s.ctx, completeInput(*start.SnapshotId, blocks)))
	list := must(s.ebs.ListSnapshotBlocks(s.ctx, &ebs.ListSnapshotBlocksInput{SnapshotId: start.SnapshotId}))
	s.note("list", *list.VolumeSize, list.NextToken == nil) // moto has no ExpiryTime
	for _, one := range list.Blocks {
		out := must(s.ebs.GetSnapshotBlock(s.ctx, &ebs.GetSnapshotBlockInput{SnapshotId: start.SnapshotId, BlockIndex: one.BlockIndex, BlockToken: one.BlockToken}))
		s.note("block", *one.BlockIndex, *out.Checksum, out.ChecksumAlgorithm, bytes.Equal(must(io.ReadAll(out.BlockData)), blocks[*one.BlockIndex]))
	}
	p := must(s.ec2.DescribeSnapshots(s.ctx, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{*start.SnapshotId}})).Snapshots[0]
	s.note("described", p.State, *p.VolumeSize, *p.Description, *p.Encrypted, *p.OwnerId, *p.Progress, *p.Tags[0].Value)
	must(s.ec2.DeleteSnapshot(s.ctx, &ec2.DeleteSnapshotInput{SnapshotId: start.SnapshotId}))
	_, err := s.ec2.DescribeSnapshots(s.ctx, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{*start.SnapshotId}})
	s.note("deleted", code(err))
	_, err = s.ec2.DeleteSnapshot(s.ctx, &ec2.DeleteSnapshotInput{SnapshotId: start.SnapshotId})
	s.note("deleted before", code(err))
}

func ec2Script(s *script) {
	start := must(s.ebs.StartSnapshot(s.ctx, &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1)}))
	must(s.ebs.CompleteSnapshot(s.ctx, completeInput(*start.SnapshotId, nil)))
	in := imageInput("slipway machine", *start.SnapshotId)
	in.Description = aws.String("an image")
	in.DryRun = aws.Bool(true)
	_, err := s.ec2.RegisterImage(s.ctx, in)
	s.note("dry run", code(err))
	in.DryRun = nil
	ami := must(s.ec2.RegisterImage(s.ctx, in)).ImageId
	s.note("registered", prefix(ami))
	describe := func(what string, c *client, in *ec2.DescribeImagesInput) {
		for _, im := range must(c.ec2.DescribeImages(s.ctx, in)).Images {
			s.note(what, prefix(im.ImageId), *im.Name, *im.Description, im.State, im.CreationDate != nil, *im.Public)
		}
	}
	filter := []ec2types.Filter{{Name: aws.String("name"), Values: []string{"slipway*"}}}
	describe("by id", s.client, &ec2.DescribeImagesInput{ImageIds: []string{*ami}})
	describe("by name", s.client, &ec2.DescribeImagesInput{Owners: []string{"self"}, Filters: filter})
	must(s.ec2.CreateTags(s.ctx, &ec2.CreateTagsInput{Resources: []string{*ami}, Tags: []ec2types.Tag{{Key: aws.String("slipway"), Value: aws.String("1")}}}))
	describe("by tag", s.client, &ec2.DescribeImagesInput{Filters: []ec2types.Filter{{Name: aws.String("tag:slipway"), Values: []string{"1"}}}})

	share := func(m *ec2types.LaunchPermissionModifications) {
		must(s.ec2.ModifyImageAttribute(s.ctx, &ec2.ModifyImageAttributeInput{ImageId: ami, LaunchPermission: m}))
		out := must(s.ec2.DescribeImageAttribute(s.ctx, &ec2.DescribeImageAttributeInput{ImageId: ami, Attribute: ec2types.ImageAttributeNameLaunchPermission}))
		var with []string
		for _, p := range out.LaunchPermissions {
			with = append(with, aws.ToString(p.UserId)+string(p.Group))
		}
		slices.Sort(with)
		s.note("shared", with)
	}
	account, all := ec2types.LaunchPermission{UserId: aws.String("210987654321")}, ec2types.LaunchPermission{Group: ec2types.PermissionGroupAll}
	share(&ec2types.LaunchPermissionModifications{Add: []ec2types.LaunchPermission{account, all}})
	share(&ec2types.LaunchPermissionModifications{Remove: []ec2types.LaunchPermission{all}})
	must(s.ec2.ModifySnapshotAttribute(s.ctx, &ec2.ModifySnapshotAttributeInput{
		SnapshotId: start.SnapshotId, Attribute: ec2types.SnapshotAttributeNameCreateVolumePermission, OperationType: ec2types.OperationTypeAdd, UserIds: []string{"210987654321"},
	}))
	users := must(s.ec2.DescribeSnapshotAttribute(s.ctx, &ec2.DescribeSnapshotAttributeInput{SnapshotId: start.SnapshotId, Attribute: ec2types.SnapshotAttributeNameCreateVolumePermission}))
	s.note("snapshot shared", *users.CreateVolumePermissions[0].UserId)

	there := s.in("eu-west-1")
	copied := must(there.ec2.CopyImage(s.ctx, &ec2.CopyImageInput{Name: aws.String("slipway copy"), Description: aws.String("a copy"), SourceImageId: ami, SourceRegion: aws.String(awstest.Region)})).ImageId
	describe("copy", there, &ec2.DescribeImagesInput{ImageIds: []string{*copied}})
	must(there.ec2.DeregisterImage(s.ctx, &ec2.DeregisterImageInput{ImageId: copied}))

	must(s.ec2.DeregisterImage(s.ctx, &ec2.DeregisterImageInput{ImageId: ami}))
	describe("by name, after", s.client, &ec2.DescribeImagesInput{Owners: []string{"self"}, Filters: filter})
	_, err = s.ec2.ModifyImageAttribute(s.ctx, &ec2.ModifyImageAttributeInput{ImageId: aws.String("ami-0123456789abcdef0"), LaunchPermission: &ec2types.LaunchPermissionModifications{Add: []ec2types.LaunchPermission{account}}})
	s.note("share no image", code(err))
	_, err = s.ec2.DescribeImages(s.ctx, &ec2.DescribeImagesInput{ImageIds: []string{"ami-0123456789abcdef0"}})
	s.note("no image", code(err))
}

func ssmScript(s *script) {
	in := &ssm.PutParameterInput{Name: aws.String("/slipway/machine"), Value: aws.String("one"), Type: ssmtypes.ParameterTypeString}
	_, err := s.ssm.GetParameter(s.ctx, &ssm.GetParameterInput{Name: in.Name})
	s.note("no parameter", code(err))
	s.note("version", must(s.ssm.PutParameter(s.ctx, in)).Version)
	_, err = s.ssm.PutParameter(s.ctx, in)
	s.note("again", code(err))
	in.Value, in.Overwrite = aws.String("two"), aws.Bool(true)
	s.note("version", must(s.ssm.PutParameter(s.ctx, in)).Version)
	p := must(s.ssm.GetParameter(s.ctx, &ssm.GetParameterInput{Name: in.Name})).Parameter
	s.note("parameter", *p.Name, *p.Value, p.Type, p.Version, *p.ARN, aws.ToString(p.DataType))
	both := must(s.ssm.GetParameters(s.ctx, &ssm.GetParametersInput{Names: []string{*in.Name, "/other"}}))
	s.note("both", len(both.Parameters), both.InvalidParameters)
	must(s.ssm.DeleteParameter(s.ctx, &ssm.DeleteParameterInput{Name: in.Name}))
}
