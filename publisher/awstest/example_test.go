package awstest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log"
	"net/http/httptest"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	ebstypes "github.com/aws/aws-sdk-go-v2/service/ebs/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/slipway-build/slipway/publisher/awstest"
)

// This example registers an AMI with the AWS SDK for Go. In a test, use
// [awstest.Start] instead of New and httptest; other programs reach the fake
// through the environment variables that [awstest.Env] returns.
func Example() {
	fake := awstest.New(awstest.Knobs{})
	defer fake.Close()
	server := httptest.NewServer(fake)
	defer server.Close()
	ctx := context.Background()
	conf := aws.Config{
		BaseEndpoint: &server.URL,
		Region:       awstest.Region,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: awstest.AccessKeyID, SecretAccessKey: awstest.SecretAccessKey}, nil
		}),
	}

	// A disk of 1 GiB with one block that is not zero.
	blocks := ebs.NewFromConfig(conf)
	snapshot, err := blocks.StartSnapshot(ctx, &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1)})
	if err != nil {
		log.Fatal(err)
	}
	block := bytes.Repeat([]byte("disk"), awstest.BlockSize/4)
	sum := sha256.Sum256(block)
	if _, err := blocks.PutSnapshotBlock(ctx, &ebs.PutSnapshotBlockInput{
		SnapshotId: snapshot.SnapshotId, BlockIndex: aws.Int32(0),
		BlockData: bytes.NewReader(block), DataLength: aws.Int32(awstest.BlockSize),
		Checksum: aws.String(base64.StdEncoding.EncodeToString(sum[:])), ChecksumAlgorithm: ebstypes.ChecksumAlgorithmChecksumAlgorithmSha256,
	}); err != nil {
		log.Fatal(err)
	}
	if _, err := blocks.CompleteSnapshot(ctx, &ebs.CompleteSnapshotInput{
		SnapshotId: snapshot.SnapshotId, ChangedBlocksCount: aws.Int32(1),
	}); err != nil {
		log.Fatal(err)
	}
	fmt.Println("orphans:", len(fake.Orphans()))

	images := ec2.NewFromConfig(conf)
	if _, err := images.RegisterImage(ctx, &ec2.RegisterImageInput{
		Name: aws.String("machine"), RootDeviceName: aws.String("/dev/xvda"),
		Architecture: ec2types.ArchitectureValuesX8664, VirtualizationType: aws.String("hvm"),
		BlockDeviceMappings: []ec2types.BlockDeviceMapping{{
			DeviceName: aws.String("/dev/xvda"), Ebs: &ec2types.EbsBlockDevice{SnapshotId: snapshot.SnapshotId},
		}},
	}); err != nil {
		log.Fatal(err)
	}
	list, err := images.DescribeImages(ctx, &ec2.DescribeImagesInput{Owners: []string{"self"}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(*list.Images[0].Name, list.Images[0].State)
	fmt.Println("orphans:", len(fake.Orphans()))
	fmt.Println("violations:", len(fake.Violations()))

	disk, err := fake.Disk(awstest.Region, *snapshot.SnapshotId)
	if err != nil {
		log.Fatal(err)
	}
	data := make([]byte, 4)
	if _, err := disk.ReadAt(data, 0); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s, %d bytes\n", data, disk.Size)
	// Output:
	// orphans: 1
	// machine available
	// orphans: 0
	// violations: 0
	// disk, 1073741824 bytes
}

// The seed replays the schedule of a failed run.
func ExampleRandom() {
	decide := awstest.Random(42, 0.5, 3, awstest.Throttle, awstest.LostReset)
	for attempt := range 5 {
		fmt.Println(decide(awstest.Request{Service: "ec2", Operation: "RegisterImage", Attempt: attempt + 1}))
	}
	// Output:
	// throttle
	// none
	// lost and reset
	// none
	// none
}
