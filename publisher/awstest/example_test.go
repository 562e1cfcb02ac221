package awstest_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http/httptest"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/slipway-build/slipway/publisher/awstest"
)

// Outside of tests, the fake is served like any handler; clients reach it by the variables of [awstest.Env], or as here.
func Example() {
	fake := awstest.New(awstest.Knobs{})
	defer fake.Close()
	server := httptest.NewServer(fake)
	defer server.Close()
	fake.CreateBucket("eu-west-1", "disks")

	client := s3.New(s3.Options{
		BaseEndpoint: &server.URL, Region: "eu-west-1",
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: awstest.AccessKeyID, SecretAccessKey: awstest.SecretAccessKey}, nil
		}),
	})
	_, err := client.PutObject(context.Background(), &s3.PutObjectInput{
		Bucket: aws.String("disks"), Key: aws.String("disk.raw"), Body: bytes.NewReader([]byte("a disk")),
	})
	fmt.Println(err)
	fmt.Println(fake.Orphans())
	fmt.Println(fake.Violations())
	// Output:
	// <nil>
	// [eu-west-1 object s3://disks/disk.raw]
	// []
}

// A run that failed can be played again by its seed.
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
