package ami

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipway-build/slipway/internal/testutil/stack"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/slipway-build/slipway/publisher/awstest"
	"github.com/slipway-build/slipway/publisher/disk"
)

// gateway starts a real S3 server. It returns a target with an object to write
// to a bucket there.
func gateway(t *testing.T) *target {
	t.Helper()
	program := stack.File(t, "versitygw")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	const access, secret = "slipway", "the secret of this test"
	store, sidecar := t.TempDir(), t.TempDir()
	server := exec.CommandContext(t.Context(), program, "--quiet", "--port", address, "--access", access, "--secret", secret,
		"posix", "--sidecar", sidecar, store)
	var log bytes.Buffer
	server.Stdout, server.Stderr = &log, &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if server.Wait(); t.Failed() {
			t.Logf("output of the server:\n%s", log.String())
		}
	})

	cfg := aws.Config{
		Region:       "us-east-1",
		BaseEndpoint: aws.String("http://" + address),
		Credentials:  credentials.NewStaticCredentialsProvider(access, secret, ""),
	}
	monitor := new(Monitor)
	r := &target{
		publisher: &Publisher{options: Options{Bucket: "disks", Monitor: monitor}},
		aws:       connect(cfg, cfg.Region, http.DefaultClient, limits{attempt: 5 * time.Second, workers: 1, rate: 1, retries: &monitor.Retries}),
		journal:   &journal{record: record{Object: objectPrefix + "run.raw"}},
	}
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		_, err := r.aws.objects.s3.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &r.publisher.options.Bucket})
		if err == nil {
			return r
		}
		if time.Since(start) > 20*time.Second {
			t.Fatal(err)
		}
	}
}

// TestS3 uploads a disk in three parts to a real S3 server. It removes what
// complete and interrupted uploads leave there.
func TestS3(t *testing.T) {
	r := gateway(t)
	data := make([]byte, 20<<20+1234)
	rand.NewChaCha8([32]byte{3}).Read(data)
	path := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := disk.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	r.publisher.disk = d

	bucket, key, objects := r.publisher.options.Bucket, r.journal.Object, &r.aws.objects
	if err := (importer{r}).upload(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := objects.s3.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &r.publisher.options.Bucket, Key: &key})
	if err != nil {
		t.Fatal(err)
	}
	back, err := io.ReadAll(got.Body)
	if err != nil || !bytes.Equal(back, data) {
		t.Errorf("the object is not the disk: %d bytes, %v", len(back), err)
	}
	if etag := strings.Trim(aws.ToString(got.ETag), `"`); !strings.HasSuffix(etag, "-3") {
		t.Errorf("the upload did not have three parts: ETag %s", etag)
	}
	if read := r.monitor().Bytes.Load(); read != int64(len(data)) {
		t.Errorf("the monitor counts %d of %d bytes", read, len(data))
	}

	// A killed run leaves parts that no one completes.
	killed, err := r.aws.objects.s3.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &r.publisher.options.Bucket, Key: &key})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.aws.objects.s3.UploadPart(t.Context(), &s3.UploadPartInput{
		Bucket: &r.publisher.options.Bucket, Key: &key, UploadId: killed.UploadId, PartNumber: aws.Int32(1), Body: bytes.NewReader(data[:5<<20]),
	}); err != nil {
		t.Fatal(err)
	}
	if uploads, _ := contents(t, r); uploads != 1 {
		t.Fatalf("%d incomplete uploads instead of 1: the server does not keep them", uploads)
	}
	if err := objects.delete(t.Context(), bucket, key, looksForParts); err != nil {
		t.Error(err)
	}
	if uploads, objects := contents(t, r); uploads+objects > 0 {
		t.Errorf("left behind: %d uploads, %d objects", uploads, objects)
	}
	if err := objects.delete(t.Context(), bucket, key, looksForParts); err != nil {
		t.Errorf("removing a missing object: %v", err)
	}

	// An interrupt during the upload of parts.
	ctx, cancel := context.WithCancel(t.Context())
	objects.uploader = s3.New(objects.uploader.Options(), func(o *s3.Options) { o.HTTPClient = cancelAt{o.HTTPClient, "partNumber=2", cancel} })
	if err := (importer{r}).upload(ctx); ClassOf(err) != ClassInterrupted {
		t.Errorf("interrupted: %v", err)
	}
	if err := objects.delete(t.Context(), bucket, key, looksForParts); err != nil {
		t.Error(err)
	}
	if uploads, objects := contents(t, r); uploads+objects > 0 {
		t.Errorf("left behind: %d uploads, %d objects", uploads, objects)
	}
}

// A part that arrives after the upload was aborted brings the upload back.
func TestLatePart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := awstest.StartMemory(t, awstest.Knobs{})
		fake.CreateBucket(awstest.Region, "disks")
		cfg := aws.Config{
			Region:       awstest.Region,
			BaseEndpoint: aws.String(fake.URL()),
			Credentials:  credentials.NewStaticCredentialsProvider(awstest.AccessKeyID, awstest.SecretAccessKey, ""),
		}
		client := &http.Client{Transport: &http.Transport{DialContext: fake.DialContext}}
		o := connect(cfg, cfg.Region, client, limits{attempt: time.Second, workers: 1, rate: 1, retries: new(atomic.Int64)}).objects
		create := func() {
			if _, err := o.s3.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: aws.String("disks"), Key: aws.String("key")}); err != nil {
				t.Error(err)
			}
		}
		time.AfterFunc(800*time.Millisecond, create) // the transfer manager has aborted the first
		if err := o.delete(t.Context(), "disks", "key", looksForParts); err != nil {
			t.Error(err)
		}
		if left := fake.Orphans(); len(left) > 0 || fake.Count("s3:AbortMultipartUpload") != 1 {
			t.Errorf("left %v after %v", left, fake.Requests())
		}
	})
}

func contents(t *testing.T, r *target) (uploads, objects int) {
	t.Helper()
	list, err := r.aws.objects.s3.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: &r.publisher.options.Bucket})
	if err != nil {
		t.Fatal(err)
	}
	files, err := r.aws.objects.s3.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: &r.publisher.options.Bucket})
	if err != nil {
		t.Fatal(err)
	}
	return len(list.Uploads), len(files.Contents)
}

// cancelAt calls cancel before a request whose query contains a text.
type cancelAt struct {
	client aws.HTTPClient
	query  string
	cancel context.CancelFunc
}

func (c cancelAt) Do(r *http.Request) (*http.Response, error) {
	if strings.Contains(r.URL.RawQuery, c.query) {
		c.cancel()
	}
	return c.client.Do(r)
}
