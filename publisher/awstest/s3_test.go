package awstest_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/slipway-build/slipway/publisher/awstest"
)

var bucket = aws.String("disks")

func TestObjects(t *testing.T) {
	for name, virtual := range map[string]bool{"path style": false, "virtual style": true} {
		t.Run(name, func(t *testing.T) {
			c := start(t, awstest.Knobs{})
			if virtual {
				c.conf.HTTPClient = toLoopback{c.fake.URL()}
				c.conf.BaseEndpoint = aws.String("http://s3.us-east-1.amazonaws.test")
				c.s3 = s3.NewFromConfig(c.conf)
			}
			must(c.s3.CreateBucket(c.ctx, &s3.CreateBucketInput{Bucket: bucket}))
			data := noise(1, 1<<20)
			for _, key := range []string{"a", "dir/b c+ü", "dir/d"} {
				must(c.s3.PutObject(c.ctx, &s3.PutObjectInput{Bucket: bucket, Key: &key, Body: bytes.NewReader(data)}))
			}
			out := must(c.s3.GetObject(c.ctx, &s3.GetObjectInput{Bucket: bucket, Key: aws.String("dir/b c+ü"), ChecksumMode: s3types.ChecksumModeEnabled}))
			if got := must(io.ReadAll(out.Body)); !bytes.Equal(got, data) {
				t.Error("the object is different")
			}
			part := must(c.s3.GetObject(c.ctx, &s3.GetObjectInput{Bucket: bucket, Key: aws.String("a"), Range: aws.String("bytes=5-9")}))
			if got := must(io.ReadAll(part.Body)); !bytes.Equal(got, data[5:10]) {
				t.Errorf("bytes 5 to 9 are %v", got)
			}
			if n := *must(c.s3.HeadObject(c.ctx, &s3.HeadObjectInput{Bucket: bucket, Key: aws.String("a")})).ContentLength; n != 1<<20 {
				t.Errorf("the object has %d bytes", n)
			}
			list := must(c.s3.ListObjectsV2(c.ctx, &s3.ListObjectsV2Input{Bucket: bucket, Prefix: aws.String("dir/"), MaxKeys: aws.Int32(1)}))
			if len(list.Contents) != 1 || !*list.IsTruncated || *list.Contents[0].Key != "dir/b c+ü" {
				t.Errorf("the list is %+v", list)
			}
			for _, key := range []string{"a", "dir/b c+ü", "dir/d"} {
				must(c.s3.DeleteObject(c.ctx, &s3.DeleteObjectInput{Bucket: bucket, Key: &key}))
			}
			if _, err := c.s3.GetObject(c.ctx, &s3.GetObjectInput{Bucket: bucket, Key: aws.String("a")}); code(err) != "NoSuchKey" {
				t.Error(err)
			}
			must(c.s3.DeleteBucket(c.ctx, &s3.DeleteBucketInput{Bucket: bucket}))
			if _, err := c.s3.HeadBucket(c.ctx, &s3.HeadBucketInput{Bucket: bucket}); code(err) != "NotFound" {
				t.Error(err)
			}
			c.clean()
		})
	}
}

func TestBucketRegion(t *testing.T) {
	c := start(t, awstest.Knobs{})
	c.fake.CreateBucket("eu-west-1", "disks")
	if got := must(c.s3.GetBucketLocation(c.ctx, &s3.GetBucketLocationInput{Bucket: bucket})).LocationConstraint; got != "eu-west-1" {
		t.Errorf("the bucket is in %q", got)
	}
	_, err := c.s3.PutObject(c.ctx, &s3.PutObjectInput{Bucket: bucket, Key: aws.String("a"), Body: bytes.NewReader(nil)})
	if code(err) != "PermanentRedirect" {
		t.Error(err)
	}
	if got := *must(c.in("eu-west-1").s3.HeadBucket(c.ctx, &s3.HeadBucketInput{Bucket: bucket})).BucketRegion; got != "eu-west-1" {
		t.Errorf("the bucket is in %q", got)
	}
	c.clean()
}

// All checksum algorithms of the SDK that the fake knows.
func TestChecksums(t *testing.T) {
	c := start(t, awstest.Knobs{})
	c.fake.CreateBucket(awstest.Region, "disks")
	for _, algorithm := range s3types.ChecksumAlgorithm("").Values() {
		switch algorithm {
		case s3types.ChecksumAlgorithmCrc32, s3types.ChecksumAlgorithmCrc32c, s3types.ChecksumAlgorithmCrc64nvme, s3types.ChecksumAlgorithmSha1, s3types.ChecksumAlgorithmSha256:
		default: // the fake does not know newer ones
			continue
		}
		in := &s3.PutObjectInput{Bucket: bucket, Key: aws.String(string(algorithm)), Body: bytes.NewReader(noise(1, 100000)), ChecksumAlgorithm: algorithm}
		must(c.s3.PutObject(c.ctx, in))
	}
	if n := len(c.fake.Orphans()); n != 5 {
		t.Errorf("%d objects, not 5", n)
	}
	c.clean()
}

// Over TLS, the SDK sends data in chunks and the checksum as a trailer.
func TestTrailer(t *testing.T) {
	fake := awstest.New(awstest.Knobs{})
	defer fake.Close()
	server := httptest.NewTLSServer(fake)
	defer server.Close()
	fake.CreateBucket(awstest.Region, "disks")
	for name, way := range map[string]aws.HTTPClient{"good": server.Client(), "changed": changeBody{server.Client()}} {
		conf := config(server.URL, awstest.Region)
		conf.HTTPClient = way
		c := connect(t, fake, conf)
		data := noise(1, 100000)
		body := io.LimitReader(bytes.NewReader(data), int64(len(data))) // not seekable
		_, err := c.s3.PutObject(c.ctx, &s3.PutObjectInput{Bucket: bucket, Key: aws.String(name), Body: body, ContentLength: aws.Int64(int64(len(data)))})
		if name == "changed" {
			if code(err) != "BadDigest" {
				t.Errorf("a changed body: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		out := must(c.s3.GetObject(c.ctx, &s3.GetObjectInput{Bucket: bucket, Key: &name}))
		if got := must(io.ReadAll(out.Body)); !bytes.Equal(got, data) {
			t.Error("the object is different")
		}
	}
	if n := len(fake.Violations()); n != 1 {
		t.Errorf("violations are %v", fake.Violations())
	}
}

func TestMultipart(t *testing.T) {
	c := start(t, awstest.Knobs{})
	c.fake.CreateBucket(awstest.Region, "disks")
	key := aws.String("disk.raw")
	data := noise(1, 11<<20)
	create := func() *string {
		return must(c.s3.CreateMultipartUpload(c.ctx, &s3.CreateMultipartUploadInput{Bucket: bucket, Key: key})).UploadId
	}
	upload := func(id *string, number int32, data []byte) s3types.CompletedPart {
		out := must(c.s3.UploadPart(c.ctx, &s3.UploadPartInput{Bucket: bucket, Key: key, UploadId: id, PartNumber: &number, Body: bytes.NewReader(data)}))
		return s3types.CompletedPart{PartNumber: &number, ETag: out.ETag, ChecksumCRC32: out.ChecksumCRC32}
	}
	complete := func(id *string, parts ...s3types.CompletedPart) error {
		_, err := c.s3.CompleteMultipartUpload(c.ctx, &s3.CompleteMultipartUploadInput{
			Bucket: bucket, Key: key, UploadId: id, MultipartUpload: &s3types.CompletedMultipartUpload{Parts: parts},
		})
		return err
	}
	id := create()
	second := upload(id, 2, data[6<<20:])
	first := upload(id, 1, data[:6<<20])
	if list := must(c.s3.ListParts(c.ctx, &s3.ListPartsInput{Bucket: bucket, Key: key, UploadId: id})).Parts; len(list) != 2 {
		t.Errorf("parts are %+v", list)
	}
	if list := must(c.s3.ListMultipartUploads(c.ctx, &s3.ListMultipartUploadsInput{Bucket: bucket})).Uploads; len(list) != 1 || len(c.fake.Orphans()) != 1 {
		t.Errorf("uploads are %+v, orphans %v", list, c.fake.Orphans())
	}
	if err := complete(id, first, second); err != nil {
		t.Fatal(err)
	}
	out := must(c.s3.GetObject(c.ctx, &s3.GetObjectInput{Bucket: bucket, Key: key}))
	if got := must(io.ReadAll(out.Body)); !bytes.Equal(got, data) {
		t.Error("the object is different")
	}
	if err := complete(id, first, second); code(err) != "NoSuchUpload" {
		t.Errorf("completed again: %v", err)
	}
	id = create()
	must(c.s3.AbortMultipartUpload(c.ctx, &s3.AbortMultipartUploadInput{Bucket: bucket, Key: key, UploadId: id}))
	if n := len(c.fake.Orphans()); n != 1 {
		t.Errorf("%d orphans, not just the object", n)
	}
	c.clean()

	id = create()
	for want, err := range map[string]error{
		"EntityTooSmall":   complete(id, upload(id, 1, data[:100]), upload(id, 2, data[:100])),
		"InvalidPartOrder": complete(id, upload(id, 2, data[:100]), upload(id, 1, data[:100])),
		"InvalidPart":      complete(id, s3types.CompletedPart{PartNumber: aws.Int32(1), ETag: aws.String("x")}),
	} {
		if code(err) != want {
			t.Errorf("%v, not %s", err, want)
		}
	}
	if n := len(c.fake.Violations()); n != 3 {
		t.Errorf("%d violations, not 3: %v", n, c.fake.Violations())
	}
}

// The SDK cannot send an incorrect digest; therefore the body changes in
// transit.
func TestDigests(t *testing.T) {
	c := start(t, awstest.Knobs{})
	c.fake.CreateBucket(awstest.Region, "disks")
	c.conf.HTTPClient = changeBody{http.DefaultClient}
	_, err := s3.NewFromConfig(c.conf).PutObject(c.ctx, &s3.PutObjectInput{Bucket: bucket, Key: aws.String("a"), Body: bytes.NewReader(noise(1, 1000))})
	if code(err) != "XAmzContentSHA256Mismatch" {
		t.Error(err)
	}
	c.violated("is not the body's digest")
	if orphans := c.fake.Orphans(); len(orphans) != 0 {
		t.Errorf("orphans are %v", orphans)
	}
}

func TestNoSuchBucket(t *testing.T) {
	c := start(t, awstest.Knobs{})
	for i, try := range []func() error{
		func() error {
			_, err := c.s3.PutObject(c.ctx, &s3.PutObjectInput{Bucket: bucket, Key: aws.String("a"), Body: bytes.NewReader(nil)})
			return err
		},
		func() error {
			_, err := c.s3.CreateMultipartUpload(c.ctx, &s3.CreateMultipartUploadInput{Bucket: bucket, Key: aws.String("a")})
			return err
		},
	} {
		if err := try(); code(err) != "NoSuchBucket" {
			t.Error(i, err)
		}
	}
	c.clean()
	if _, err := c.s3.CreateBucket(c.ctx, &s3.CreateBucketInput{Bucket: aws.String("Disks!")}); code(err) != "InvalidBucketName" {
		t.Error(fmt.Sprint(err))
	}
}
