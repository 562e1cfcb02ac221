package awstest

import (
	"cmp"
	"encoding/xml"
	"maps"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// S3: the API reference of version 2006-03-01, with path-style and
// virtual-hosted-style addresses. This file has the protocol and the operations
// on buckets; the other s3_ files have objects, multipart uploads and request
// bodies.

// A bucket belongs to one region, but its name is global.
type bucket struct {
	name, region string
	objects      map[string]*object
	uploads      map[string]*upload
}

func (b *bucket) close() {
	for _, o := range b.objects {
		closeAll(o.parts)
	}
	for _, u := range b.uploads {
		u.close()
	}
}

// CreateBucket creates an empty bucket, or replaces the bucket of that name.
func (s *Server) CreateBucket(region, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.createBucket(region, name)
}

// createBucket is CreateBucket. The caller holds s.mu.
func (s *Server) createBucket(region, name string) {
	if old := s.buckets[name]; old != nil {
		old.close()
	}
	s.buckets[name] = &bucket{name: name, region: region, objects: map[string]*object{}, uploads: map[string]*upload{}}
}

func s3Service() *service {
	return &service{
		route: routeS3,
		operations: map[string]func(*call) (any, error){
			"AbortMultipartUpload":    onTarget((*call).abortUpload),
			"CompleteMultipartUpload": (*call).completeUpload,
			"CreateBucket":            (*call).createBucketOperation,
			"CreateMultipartUpload":   onTarget((*call).createUpload),
			"DeleteBucket":            onTarget((*call).deleteBucket),
			"DeleteObject":            onTarget((*call).deleteObject),
			"GetBucketLocation":       onTarget((*call).getBucketLocation),
			"GetObject":               onTarget((*call).getObject),
			"HeadBucket":              onTarget((*call).headBucket),
			"HeadObject":              onTarget((*call).getObject),
			"ListBuckets":             (*call).listBuckets,
			"ListMultipartUploads":    onTarget((*call).listUploads),
			"ListObjectsV2":           onTarget((*call).listObjects),
			"ListParts":               onTarget((*call).listParts),
			"PutObject":               withBody((*call).putObject),
			"UploadPart":              withBody((*call).uploadPart),
		},
		encode: func(_ *call, v any) *answer { return encodeXML(http.StatusOK, v) },
		fail: func(_ *call, e *apiError) *answer {
			a := encodeXML(e.status, struct {
				XMLName                  xml.Name `xml:"Error"`
				Code, Message, RequestID string
			}{Code: e.code, Message: e.message, RequestID: requestID})
			maps.Copy(a.header, e.header)
			return a
		},
		throttle:    *newError("SlowDown", "please reduce your request rate").withStatus(http.StatusServiceUnavailable),
		internal:    *newError("InternalError", "we encountered an internal error, please try again").withStatus(http.StatusInternalServerError),
		denied:      *newError("AccessDenied", "").withStatus(http.StatusForbidden),
		credentials: *newError("InvalidAccessKeyId", "the AWS access key id you provided does not exist in our records").withStatus(http.StatusForbidden),
		expired:     *newError("ExpiredToken", "the provided token has expired"),
	}
}

// s3Routes are the requests that the fake knows. The first one matches whose
// method, kind of resource and required query parameters a request has; only
// these and the optional parameters may be there.
var s3Routes = []struct {
	operation, method  string
	object             bool // the path has a key
	required, optional []string
}{
	{"UploadPart", "PUT", true, []string{"uploadId", "partNumber"}, nil},
	{"CreateMultipartUpload", "POST", true, []string{"uploads"}, nil},
	{"CompleteMultipartUpload", "POST", true, []string{"uploadId"}, nil},
	{"AbortMultipartUpload", "DELETE", true, []string{"uploadId"}, nil},
	{"ListParts", "GET", true, []string{"uploadId"}, nil},
	{"ListMultipartUploads", "GET", false, []string{"uploads"}, []string{"prefix"}},
	{"GetBucketLocation", "GET", false, []string{"location"}, nil},
	{"ListObjectsV2", "GET", false, []string{"list-type"}, []string{"prefix", "max-keys", "continuation-token"}},
	{"CreateBucket", "PUT", false, nil, nil},
	{"DeleteBucket", "DELETE", false, nil, nil},
	{"HeadBucket", "HEAD", false, nil, nil},
	{"PutObject", "PUT", true, nil, nil},
	{"GetObject", "GET", true, nil, nil},
	{"HeadObject", "HEAD", true, nil, nil},
	{"DeleteObject", "DELETE", true, nil, nil},
}

func routeS3(c *call) error {
	name, key := s3Address(c.http)
	c.Resource = strings.TrimSuffix(name+"/"+key, "/")
	query := c.http.URL.Query()
	var known []string
	if name == "" {
		c.Operation = "ListBuckets"
	}
	for _, r := range s3Routes {
		if c.Operation == "" && c.http.Method == r.method && r.object == (key != "") && hasAll(query, r.required) {
			c.Operation, known = r.operation, slices.Concat(r.required, r.optional)
		}
	}
	if c.Operation == "" {
		return violation("MethodNotAllowed", "awstest does not implement S3 %s %s", c.http.Method, c.http.URL).withStatus(http.StatusMethodNotAllowed)
	}
	if c.Operation == "UploadPart" {
		c.Resource += "#" + query.Get("partNumber")
	}
	for parameter := range query {
		if parameter != "x-id" && !slices.Contains(known, parameter) {
			return violation("NotImplemented", "awstest does not implement the parameter %q of S3 %s", parameter, c.Operation).withStatus(http.StatusNotImplemented)
		}
	}
	if c.http.Header.Get("X-Amz-Content-Sha256") == "" {
		return violation("MissingSecurityHeader", "an S3 request requires x-amz-content-sha256")
	}
	return nil
}

func hasAll(query url.Values, names []string) bool {
	return !slices.ContainsFunc(names, func(name string) bool { return !query.Has(name) })
}

// s3Address finds the bucket and the key in the host and the path.
func s3Address(r *http.Request) (bucket, key string) {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	path := strings.TrimPrefix(r.URL.Path, "/")
	for _, end := range []string{".localhost", ".s3.", ".s3-"} {
		if i := strings.Index(host, end); i > 0 {
			return host[:i], path
		}
	}
	bucket, key, _ = strings.Cut(path, "/")
	return bucket, key
}

// A target is what a request addresses. The upload is nil unless the request
// names one.
type target struct {
	*bucket
	key, uploadID string
	upload        *upload
}

// target returns the target of the request. The caller holds s.mu.
func (c *call) target() (target, error) {
	name, key := s3Address(c.http)
	t := target{bucket: c.buckets[name], key: key, uploadID: c.http.URL.Query().Get("uploadId")}
	switch {
	case t.bucket == nil:
		return t, newError("NoSuchBucket", "the bucket %s does not exist", name).withStatus(http.StatusNotFound)
	case t.region != c.Region && c.Operation != "GetBucketLocation":
		e := newError("PermanentRedirect", "the bucket %s is in %s, not in %s", name, t.region, c.Region).withStatus(http.StatusMovedPermanently)
		e.header = map[string]string{"x-amz-bucket-region": t.region}
		return t, e
	case t.uploadID == "":
		return t, nil
	}
	if t.upload = t.uploads[t.uploadID]; t.upload == nil || t.upload.key != key {
		return t, newError("NoSuchUpload", "the upload does not exist; it may have been aborted or completed").withStatus(http.StatusNotFound)
	}
	return t, nil
}

// onTarget makes an operation that holds s.mu and gets the request's target.
func onTarget(operation func(*call, target) (any, error)) func(*call) (any, error) {
	return func(c *call) (any, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		t, err := c.target()
		if err != nil {
			return nil, err
		}
		return operation(c, t)
	}
}

// withBody makes an operation that gets the request's body too, which is stored
// without holding s.mu. The target must exist before and after that.
func withBody(operation func(*call, target, *part) (any, error)) func(*call) (any, error) {
	return func(c *call) (any, error) {
		if _, err := onTarget(func(*call, target) (any, error) { return nil, nil })(c); err != nil {
			return nil, err
		}
		p, err := c.receive()
		if err != nil {
			return nil, err
		}
		result, err := onTarget(func(c *call, t target) (any, error) { return operation(c, t, p) })(c)
		if err != nil {
			p.file.Close()
		}
		return result, err
	}
}

func (c *call) listBuckets() (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	type item struct{ Name, CreationDate, BucketRegion string }
	out := struct {
		XMLName xml.Name `xml:"ListAllMyBucketsResult"`
		Buckets []item   `xml:"Buckets>Bucket"`
	}{}
	for _, name := range slices.Sorted(maps.Keys(c.buckets)) {
		out.Buckets = append(out.Buckets, item{name, isoTime(time.Unix(0, 0)), c.buckets[name].region})
	}
	return out, nil
}

var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

func (c *call) createBucketOperation() (any, error) {
	var in struct{ LocationConstraint string }
	if err := c.document(&in); err != nil {
		return nil, err
	}
	name, _ := s3Address(c.http)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !bucketName.MatchString(name):
		return nil, violation("InvalidBucketName", "the bucket name %q is not valid", name)
	case cmp.Or(in.LocationConstraint, "us-east-1") != c.Region:
		return nil, violation("IllegalLocationConstraintException", "the location constraint %q is not the region %s of the request", in.LocationConstraint, c.Region)
	case c.buckets[name] != nil:
		return nil, newError("BucketAlreadyOwnedByYou", "the bucket %s exists", name).withStatus(http.StatusConflict)
	}
	c.createBucket(c.Region, name)
	return &answer{status: http.StatusOK, header: map[string]string{"Location": "/" + name}}, nil
}

func (c *call) deleteBucket(t target) (any, error) {
	if len(t.objects) > 0 {
		return nil, newError("BucketNotEmpty", "the bucket %s is not empty", t.name).withStatus(http.StatusConflict)
	}
	t.close()
	delete(c.buckets, t.name)
	return &answer{status: http.StatusNoContent}, nil
}

func (c *call) headBucket(t target) (any, error) {
	return &answer{status: http.StatusOK, header: map[string]string{"x-amz-bucket-region": t.region}}, nil
}

func (c *call) getBucketLocation(t target) (any, error) {
	out := struct {
		XMLName xml.Name `xml:"LocationConstraint"`
		Region  string   `xml:",chardata"`
	}{Region: t.region}
	if t.region == "us-east-1" { // the documented value is null
		out.Region = ""
	}
	return out, nil
}
