package ami_test

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/slipway-build/slipway/publisher/ami"
	"github.com/slipway-build/slipway/publisher/awstest"
	"github.com/slipway-build/slipway/publisher/disk"
)

// Publish a disk to a fake of AWS. For AWS itself, the configuration comes from
// config.LoadDefaultConfig.
func Example() {
	fake := awstest.New(awstest.Knobs{})
	defer fake.Close()
	server := httptest.NewServer(fake)
	defer server.Close()
	cfg := aws.Config{
		Region:       "us-east-1",
		BaseEndpoint: &server.URL,
		Credentials:  credentials.NewStaticCredentialsProvider(awstest.AccessKeyID, awstest.SecretAccessKey, ""),
	}
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "web.raw")
	if err := os.WriteFile(path, content(1, 6), 0o600); err != nil {
		log.Fatal(err)
	}

	ctx := context.Background()
	d, err := disk.Open(ctx, path)
	if err != nil {
		log.Fatal(err)
	}
	defer d.Close()
	publisher, err := ami.New(d, ami.Options{Name: "web-1", State: filepath.Join(dir, "state")})
	if err != nil {
		log.Fatal(err)
	}
	for range 2 {
		result, err := publisher.Publish(ctx, cfg)
		if err != nil {
			log.Fatal(err)
		}
		image := result.Images[0]
		fmt.Printf("%s in %s boots as %s on %s, existing: %v\n", result.Name, image.Region, image.BootMode, image.Architecture, image.Existing)
	}

	// An interrupted run may leave resources behind. This one left nothing.
	left, err := ami.GC(ctx, cfg, ami.GCOptions{OlderThan: 2 * time.Hour, DryRun: true})
	fmt.Println(len(left), "leftovers,", err)
	// Output:
	// web-1 in us-east-1 boots as legacy-bios on x86_64, existing: false
	// web-1 in us-east-1 boots as legacy-bios on x86_64, existing: true
	// 0 leftovers, <nil>
}

// An error has a class, which is also the exit status of slipway-publish.
func ExampleClassOf() {
	_, err := ami.GC(context.Background(), aws.Config{}, ami.GCOptions{})
	if ami.ClassOf(err) == ami.ClassRegionUnavailable {
		fmt.Println(err)
	}
	// Output:
	// no region: use --region, or set AWS_REGION
}
