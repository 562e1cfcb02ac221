package ami

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// objectPrefix is the folder of all objects that this package writes.
const objectPrefix = "slipway-publish/"

// objects are the objects in S3.
type objects struct {
	uploader *s3.Client // retries by itself, for the transfer manager
	s3       *s3.Client
	caller   caller
}

// upload writes an object of size bytes.
func (o objects) upload(ctx context.Context, bucket, key string, body io.Reader, size int64) error {
	manager := transfermanager.New(o.uploader, func(o *transfermanager.Options) {
		// At most 8 parts in memory, and at most 10,000 parts in all.
		o.PartSizeBytes = max(8<<20, (size/9000+1<<20)>>20<<20)
		o.Concurrency = 8
		o.FailTimeout = 30 * time.Second
	})
	_, err := manager.UploadObject(ctx, &transfermanager.UploadObjectInput{Bucket: &bucket, Key: &key, Body: body})
	if err != nil && ctx.Err() == nil {
		// The response to the last request may have been lost.
		head, headErr := call(ctx, o.caller, o.s3.HeadObject, &s3.HeadObjectInput{Bucket: &bucket, Key: &key})
		if headErr == nil && aws.ToInt64(head.ContentLength) == size {
			err = nil
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// region returns the region of a bucket. If it is another one than that of the
// requests, region returns an error too.
func (o objects) region(ctx context.Context, bucket string) (string, error) {
	out, err := call(ctx, o.caller, o.s3.HeadBucket, &s3.HeadBucketInput{Bucket: &bucket})
	var response *awshttp.ResponseError
	if errors.As(err, &response) && response.Response != nil {
		return response.Response.Header.Get("X-Amz-Bucket-Region"), err
	}
	if err != nil {
		return "", err
	}
	return aws.ToString(out.BucketRegion), nil
}

// looksForParts is how often, in intervals of 500 ms, an interrupted upload
// must have no parts. A part whose request was canceled may arrive after the
// upload was aborted: S3 advises to abort it again until no part is left.
const looksForParts = 4

// delete removes an object and the parts of its incomplete uploads. It succeeds
// if they are gone. It ends when it has found no parts a number of times in a
// row.
func (o objects) delete(ctx context.Context, bucket, key string, looks int) error {
	var aborted error
	for attempt, none := 0, 0; none < looks && attempt < 10+looks; attempt++ {
		if attempt > 0 {
			if err := sleep(ctx, 500*time.Millisecond); err != nil {
				return err
			}
		}
		aborted, none = nil, none+1
		for upload, err := range o.uploads(ctx, bucket, key) {
			if hasCode("NoSuchBucket")(err) {
				return nil
			} else if err != nil {
				return err
			}
			none = 0
			aborted = errors.Join(aborted, o.abort(ctx, bucket, upload))
		}
	}
	return errors.Join(aborted, o.deleteObject(ctx, bucket, key))
}

// deleteObject removes an object. It succeeds if the object is gone.
func (o objects) deleteObject(ctx context.Context, bucket, key string) error {
	_, err := call(ctx, o.caller, o.s3.DeleteObject, &s3.DeleteObjectInput{Bucket: &bucket, Key: &key})
	return err
}

// uploads yields the incomplete uploads of objects whose keys start with
// prefix.
func (o objects) uploads(ctx context.Context, bucket, prefix string) iter.Seq2[types.MultipartUpload, error] {
	p := s3.NewListMultipartUploadsPaginator(o.s3, &s3.ListMultipartUploadsInput{Bucket: &bucket, Prefix: &prefix})
	return func(yield func(types.MultipartUpload, error) bool) {
		for page, err := range pages(ctx, o.caller, p) {
			if err != nil {
				yield(types.MultipartUpload{}, err)
				return
			}
			for _, upload := range page.Uploads {
				if !yield(upload, nil) {
					return
				}
			}
		}
	}
}

// abort removes the parts of an incomplete upload.
func (o objects) abort(ctx context.Context, bucket string, upload types.MultipartUpload) error {
	_, err := call(ctx, o.caller, o.s3.AbortMultipartUpload, &s3.AbortMultipartUploadInput{Bucket: &bucket, Key: upload.Key, UploadId: upload.UploadId})
	if errorCode(err) == "NoSuchUpload" {
		return nil
	}
	return err
}

// list yields the objects whose keys start with prefix.
func (o objects) list(ctx context.Context, bucket, prefix string) iter.Seq2[types.Object, error] {
	p := s3.NewListObjectsV2Paginator(o.s3, &s3.ListObjectsV2Input{Bucket: &bucket, Prefix: &prefix})
	return func(yield func(types.Object, error) bool) {
		for page, err := range pages(ctx, o.caller, p) {
			if err != nil {
				yield(types.Object{}, err)
				return
			}
			for _, object := range page.Contents {
				if !yield(object, nil) {
					return
				}
			}
		}
	}
}
