package awstest_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/slipway-build/slipway/publisher/awstest"
)

// startTLS returns a client of a fake that serves HTTPS, configured by its
// environment alone.
func startTLS(t *testing.T, knobs awstest.Knobs) *client {
	t.Helper()
	fake := awstest.StartTLS(t, knobs)
	for _, v := range fake.Env() {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	conf := must(awsconfig.LoadDefaultConfig(t.Context(), awsconfig.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} })))
	return connect(t, fake, conf)
}

// Clients publish over HTTP/2.
func TestTLS(t *testing.T) {
	c := startTLS(t, awstest.Knobs{})
	data := noise(1, awstest.BlockSize)
	id := c.snapshot(map[int32][]byte{0: data}, nil)
	if got := c.disk(id)[:awstest.BlockSize]; !bytes.Equal(got, data) {
		t.Error("the disk is different")
	}
	must(c.ec2.RegisterImage(c.ctx, imageInput("machine", id)))
	c.fake.CreateBucket(awstest.Region, *bucket)
	key := aws.String("a")
	must(c.s3.PutObject(c.ctx, &s3.PutObjectInput{Bucket: bucket, Key: key, Body: bytes.NewReader(data)}))
	out := must(c.s3.GetObject(c.ctx, &s3.GetObjectInput{Bucket: bucket, Key: key}))
	if got := must(io.ReadAll(out.Body)); !bytes.Equal(got, data) {
		t.Error("the object is different")
	}
	for _, r := range c.fake.Requests() {
		if r.Proto != "HTTP/2.0" {
			t.Errorf("%s over %s", r, r.Proto)
		}
	}
	c.clean()
}

// Faults work over HTTP/2, where a reset ends the stream and not the
// connection.
func TestFaultsOverHTTP2(t *testing.T) {
	block := noise(1, awstest.BlockSize)
	for fault, written := range map[awstest.Fault]int{
		awstest.None: 1, awstest.Throttle: 0, awstest.Internal: 0, awstest.Stall: 0, awstest.Reset: 0,
		awstest.LostReset: 1, awstest.LostStall: 1, awstest.LostError: 1,
	} {
		t.Run(fault.String(), func(t *testing.T) {
			c := startTLS(t, awstest.Knobs{Faults: only("ebs:PutSnapshotBlock", fault)})
			id := *must(c.ebs.StartSnapshot(c.ctx, &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1)})).SnapshotId
			ctx, cancel := context.WithTimeout(c.ctx, 300*time.Millisecond)
			defer cancel()
			if _, err := c.ebs.PutSnapshotBlock(ctx, putInput(id, 0, block)); (err == nil) != (fault == awstest.None) {
				t.Errorf("the client sees %v", err)
			}
			if n := c.fake.Snapshots()[0].Written; n != written {
				t.Errorf("%d blocks were written, not %d", n, written)
			}
			c.put(id, 0, block)
			c.clean()
		})
	}
}
