package artifact_test

import (
	"context"
	"fmt"
	"log"

	"github.com/slipway-build/slipway/publisher/artifact"
	"github.com/slipway-build/slipway/publisher/disk"
)

func ExampleParseReference() {
	ref, err := artifact.ParseReference("oci://registry.example.com/machines/aws:v1")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(ref, ref.Pinned())
	_, err = artifact.ParseReference("registry.example.com/machines/aws:v1")
	fmt.Println(err)
	// Output:
	// oci://registry.example.com/machines/aws:v1 false
	// invalid reference "registry.example.com/machines/aws:v1": write oci://REGISTRY/REPOSITORY:TAG
}

// Store a disk in a registry, and read its first sector from there.
func ExamplePush() {
	ctx := context.Background()
	d, err := disk.Open(ctx, "out/aws.raw")
	if err != nil {
		log.Fatal(err)
	}
	defer d.Close()
	tag, err := artifact.ParseReference("oci://registry.example.com/machines/aws:v1")
	if err != nil {
		log.Fatal(err)
	}
	pushed, err := artifact.Push(ctx, tag, []artifact.Upload{{Disk: d, Format: "raw", Architecture: "amd64"}})
	if err != nil {
		log.Fatal(err)
	}

	a, err := artifact.Open(ctx, pushed, artifact.Choice{Architecture: "amd64"})
	if err != nil {
		log.Fatal(err)
	}
	sector := make([]byte, 512)
	if _, err := a.ReadAt(sector, 0); err != nil {
		log.Fatal(err)
	}
}
