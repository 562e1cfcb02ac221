package awstest

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// S3: the API reference of version 2006-03-01, with path-style and virtual-host-style addresses.

const minPart = 5 << 20 // of all but the last part of an upload

// bucket is one of all regions: their names are global.
type bucket struct {
	name, region string
	objects      map[string]*object
	uploads      map[string]*upload
}

// object is one that was put, or the parts of an upload.
type object struct {
	parts       []*part
	size        int64
	etag        string
	contentType string
	checksums   map[string]string
	modified    time.Time
}

// part is data in a file without a name.
type part struct {
	file      *os.File
	size      int64
	md5       []byte
	checksums map[string]string // header name to value
}

// upload is a multipart upload.
type upload struct {
	key, contentType string
	started          time.Time
	parts            map[int]*part
}

func (o *object) reader() io.Reader {
	var all []io.Reader
	for _, p := range o.parts {
		all = append(all, io.NewSectionReader(p.file, 0, p.size))
	}
	return io.MultiReader(all...)
}

func (o *object) close() {
	for _, p := range o.parts {
		p.file.Close()
	}
}

func (u *upload) close() {
	for _, p := range u.parts {
		p.file.Close()
	}
}

func (b *bucket) close() {
	for _, o := range b.objects {
		o.close()
	}
	for _, u := range b.uploads {
		u.close()
	}
}

// CreateBucket makes an empty bucket.
func (s *Server) CreateBucket(region, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buckets[name] = &bucket{name: name, region: region, objects: map[string]*object{}, uploads: map[string]*upload{}}
}

func s3Service() *service {
	return &service{
		route: routeS3,
		operations: map[string]func(*call) (any, error){
			"AbortMultipartUpload":    (*call).abortUpload,
			"CompleteMultipartUpload": (*call).completeUpload,
			"CreateBucket":            (*call).createBucket,
			"CreateMultipartUpload":   (*call).createUpload,
			"DeleteBucket":            (*call).deleteBucket,
			"DeleteObject":            (*call).deleteObject,
			"GetBucketLocation":       (*call).getBucketLocation,
			"GetObject":               (*call).getObject,
			"HeadBucket":              (*call).headBucket,
			"HeadObject":              (*call).getObject,
			"ListBuckets":             (*call).listBuckets,
			"ListMultipartUploads":    (*call).listUploads,
			"ListObjectsV2":           (*call).listObjects,
			"ListParts":               (*call).listParts,
			"PutObject":               (*call).putObject,
			"UploadPart":              (*call).uploadPart,
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
		throttle:    *refuse("SlowDown", "please reduce your request rate").with(http.StatusServiceUnavailable),
		internal:    *refuse("InternalError", "we encountered an internal error, please try again").with(http.StatusInternalServerError),
		denied:      *refuse("AccessDenied", "").with(http.StatusForbidden),
		credentials: *refuse("InvalidAccessKeyId", "the AWS access key id you provided does not exist in our records").with(http.StatusForbidden),
	}
}

// address finds bucket and key in host and path.
func address(r *http.Request) (bucket, key string) {
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

func routeS3(c *call) error {
	name, key := address(c.http)
	c.Resource = strings.TrimSuffix(name+"/"+key, "/")
	q := c.http.URL.Query()
	var known []string
	is := func(method string, object bool, parameters ...string) bool {
		for _, p := range parameters {
			if !q.Has(p) {
				return false
			}
		}
		return c.http.Method == method && object == (key != "")
	}
	switch {
	case name == "":
		c.Operation = "ListBuckets"
	case is("PUT", true, "uploadId", "partNumber"):
		c.Operation, known = "UploadPart", []string{"uploadId", "partNumber"}
		c.Resource += "#" + q.Get("partNumber")
	case is("POST", true, "uploads"):
		c.Operation, known = "CreateMultipartUpload", []string{"uploads"}
	case is("POST", true, "uploadId"):
		c.Operation, known = "CompleteMultipartUpload", []string{"uploadId"}
	case is("DELETE", true, "uploadId"):
		c.Operation, known = "AbortMultipartUpload", []string{"uploadId"}
	case is("GET", true, "uploadId"):
		c.Operation, known = "ListParts", []string{"uploadId"}
	case is("GET", false, "uploads"):
		c.Operation, known = "ListMultipartUploads", []string{"uploads", "prefix"}
	case is("GET", false, "location"):
		c.Operation, known = "GetBucketLocation", []string{"location"}
	case is("GET", false, "list-type"):
		c.Operation, known = "ListObjectsV2", []string{"list-type", "prefix", "max-keys", "continuation-token"}
	case is("PUT", false):
		c.Operation = "CreateBucket"
	case is("DELETE", false):
		c.Operation = "DeleteBucket"
	case is("HEAD", false):
		c.Operation = "HeadBucket"
	case is("PUT", true):
		c.Operation = "PutObject"
	case is("GET", true):
		c.Operation = "GetObject"
	case is("HEAD", true):
		c.Operation = "HeadObject"
	case is("DELETE", true):
		c.Operation = "DeleteObject"
	default:
		return mistake("MethodNotAllowed", "awstest has no S3 %s %s", c.http.Method, c.http.URL).with(http.StatusMethodNotAllowed)
	}
	for parameter := range q {
		if parameter != "x-id" && !slices.Contains(known, parameter) {
			return mistake("NotImplemented", "awstest does not know %q of S3's %s", parameter, c.Operation).with(http.StatusNotImplemented)
		}
	}
	if c.http.Header.Get("X-Amz-Content-Sha256") == "" {
		return mistake("MissingSecurityHeader", "a request to S3 needs x-amz-content-sha256")
	}
	return nil
}

// bucket returns the bucket of the request. The caller holds s.mu.
func (c *call) bucket() (*bucket, error) {
	name, _ := address(c.http)
	b := c.buckets[name]
	if b == nil {
		return nil, refuse("NoSuchBucket", "the bucket %s does not exist", name).with(http.StatusNotFound)
	}
	if b.region != c.Region && c.Operation != "GetBucketLocation" {
		e := refuse("PermanentRedirect", "the bucket %s is in %s, not in %s", name, b.region, c.Region).with(http.StatusMovedPermanently)
		e.header = map[string]string{"x-amz-bucket-region": b.region}
		return nil, e
	}
	return b, nil
}

func (c *call) objectKey() string {
	_, key := address(c.http)
	return key
}

// newHashes are the checksums that S3 knows, by their header.
func newHashes() map[string]hash.Hash {
	return map[string]hash.Hash{
		"x-amz-checksum-crc32":     crc32.NewIEEE(),
		"x-amz-checksum-crc32c":    crc32.New(crc32.MakeTable(crc32.Castagnoli)),
		"x-amz-checksum-crc64nvme": crc64.New(crc64.MakeTable(0x9a6c9329ac4bc9b5)),
		"x-amz-checksum-sha1":      sha1.New(),
		"x-amz-checksum-sha256":    sha256.New(),
	}
}

// receive stores the body of a request and checks all digests that come with it.
func (c *call) receive() (*part, error) {
	payload := c.http.Header.Get("X-Amz-Content-Sha256")
	sums, whole, sum := map[string]hash.Hash{}, md5.New(), sha256.New()
	given := c.http.Header.Clone()
	for name, h := range newHashes() {
		if given.Get(name) != "" || strings.EqualFold(given.Get("X-Amz-Trailer"), name) {
			sums[name] = h
		}
	}
	var body io.Reader = c.http.Body
	length := c.http.ContentLength
	var chunks *chunked
	switch {
	case payload == "STREAMING-UNSIGNED-PAYLOAD-TRAILER":
		n, err := strconv.ParseInt(given.Get("X-Amz-Decoded-Content-Length"), 10, 64)
		if err != nil {
			return nil, mistake("MissingContentLength", "aws-chunked needs x-amz-decoded-content-length").with(http.StatusLengthRequired)
		}
		length, chunks = n, &chunked{r: bufio.NewReader(body), trailer: given}
		body = chunks
	case strings.HasPrefix(payload, "STREAMING-"):
		return nil, mistake("NotImplemented", "awstest does not know %s", payload).with(http.StatusNotImplemented)
	case length < 0:
		return nil, mistake("MissingContentLength", "you must provide the Content-Length HTTP header").with(http.StatusLengthRequired)
	}
	if length > 5<<30 {
		return nil, mistake("EntityTooLarge", "one request uploads at most 5 GiB, not %d bytes", length)
	}
	file, err := anonymous()
	if err != nil {
		return nil, err
	}
	writers := []io.Writer{file, whole, sum}
	for _, h := range sums {
		writers = append(writers, h)
	}
	p := &part{file: file, checksums: map[string]string{}}
	p.size, err = io.Copy(io.MultiWriter(writers...), body)
	p.md5 = whole.Sum(nil)
	var e *apiError
	switch {
	case errors.As(err, &e):
	case err != nil:
		err = errGone
	case p.size != length:
		err = mistake("IncompleteBody", "the body has %d bytes, not %d", p.size, length)
	case chunks == nil && payload != unsignedPayload && payload != hex.EncodeToString(sum.Sum(nil)):
		err = mistake("XAmzContentSHA256Mismatch", "x-amz-content-sha256 is not the body's digest")
	case given.Get("Content-Md5") != "" && given.Get("Content-Md5") != base64.StdEncoding.EncodeToString(p.md5):
		err = mistake("BadDigest", "Content-MD5 is not the body's digest")
	}
	for name, h := range sums {
		own := base64.StdEncoding.EncodeToString(h.Sum(nil))
		if err == nil && own != given.Get(name) {
			err = mistake("BadDigest", "%s is %q, but the body's is %s", name, given.Get(name), own)
		}
		p.checksums[name] = own
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return p, nil
}

// chunked decodes the aws-chunked encoding with a trailer.
type chunked struct {
	r       *bufio.Reader
	left    int64
	done    bool
	trailer http.Header // gets the trailing headers
}

func (c *chunked) Read(p []byte) (int, error) {
	for c.left == 0 && !c.done {
		line, err := c.line()
		if err != nil {
			return 0, err
		}
		if line == "" { // after a chunk
			continue
		}
		size, _, _ := strings.Cut(line, ";")
		if c.left, err = strconv.ParseInt(size, 16, 64); err != nil || c.left < 0 {
			return 0, mistake("InvalidRequest", "aws-chunked: bad chunk size %q", line)
		}
		if c.left > 0 {
			break
		}
		c.done = true
		for {
			line, err := c.line()
			if err != nil && err != io.EOF {
				return 0, err
			}
			if line == "" {
				break
			}
			name, value, _ := strings.Cut(line, ":")
			c.trailer.Set(name, strings.TrimSpace(value))
		}
	}
	if c.done {
		return 0, io.EOF
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}

func (c *chunked) line() (string, error) {
	line, err := c.r.ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err
}

// document reads an XML body.
func (c *call) document(v any) error {
	body, err := io.ReadAll(io.LimitReader(c.http.Body, 1<<20))
	if err != nil {
		return errGone
	}
	sum := sha256.Sum256(body)
	if payload := c.http.Header.Get("X-Amz-Content-Sha256"); payload != unsignedPayload && payload != hex.EncodeToString(sum[:]) {
		return mistake("XAmzContentSHA256Mismatch", "x-amz-content-sha256 is not the body's digest")
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	if err := xml.Unmarshal(body, v); err != nil {
		return mistake("MalformedXML", "%v", err)
	}
	return nil
}

func (c *call) putObject() (any, error) {
	c.mu.Lock()
	_, err := c.bucket()
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	p, err := c.receive()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := c.bucket()
	if err != nil {
		p.file.Close()
		return nil, err
	}
	if c.http.Header.Get("If-None-Match") == "*" && b.objects[c.objectKey()] != nil {
		p.file.Close()
		return nil, refuse("PreconditionFailed", "the object exists").with(http.StatusPreconditionFailed)
	}
	o := &object{
		parts: []*part{p}, size: p.size, etag: `"` + hex.EncodeToString(p.md5) + `"`, modified: c.now(), checksums: p.checksums,
		contentType: c.http.Header.Get("Content-Type"),
	}
	b.put(c.objectKey(), o)
	a := &answer{status: http.StatusOK, header: maps.Clone(p.checksums)}
	a.header["ETag"] = o.etag
	return a, nil
}

func (b *bucket) put(key string, o *object) {
	if old := b.objects[key]; old != nil {
		old.close()
	}
	b.objects[key] = o
}

func (c *call) getObject() (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := c.bucket()
	if err != nil {
		return nil, err
	}
	o := b.objects[c.objectKey()]
	if o == nil {
		return nil, refuse("NoSuchKey", "the key %s does not exist", c.objectKey()).with(http.StatusNotFound)
	}
	a := &answer{status: http.StatusOK, stream: o.reader(), length: o.size, header: map[string]string{
		"ETag": o.etag, "Last-Modified": o.modified.Format(http.TimeFormat), "Content-Type": cmp.Or(o.contentType, "binary/octet-stream"),
		"Accept-Ranges": "bytes",
	}}
	if c.http.Header.Get("X-Amz-Checksum-Mode") == "ENABLED" && len(o.parts) == 1 {
		maps.Copy(a.header, o.checksums)
	}
	if text := c.http.Header.Get("Range"); text != "" {
		from, to := int64(0), o.size-1
		if n, _ := fmt.Sscanf(text, "bytes=%d-%d", &from, &to); n == 0 || from < 0 || from > to || from >= o.size {
			return nil, refuse("InvalidRange", "the range %q is not satisfiable", text).with(http.StatusRequestedRangeNotSatisfiable)
		}
		to = min(to, o.size-1)
		if _, err := io.CopyN(io.Discard, a.stream, from); err != nil {
			return nil, err
		}
		a.status, a.length = http.StatusPartialContent, to-from+1
		a.stream = io.LimitReader(a.stream, a.length)
		a.header["Content-Range"] = fmt.Sprintf("bytes %d-%d/%d", from, to, o.size)
	}
	return a, nil
}

func (c *call) deleteObject() (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := c.bucket()
	if err != nil {
		return nil, err
	}
	if o := b.objects[c.objectKey()]; o != nil {
		o.close()
		delete(b.objects, c.objectKey())
	}
	return &answer{status: http.StatusNoContent}, nil
}

func (c *call) createUpload() (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := c.bucket()
	if err != nil {
		return nil, err
	}
	id := c.region(c.Region).id("upload")
	b.uploads[id] = &upload{key: c.objectKey(), contentType: c.http.Header.Get("Content-Type"), started: c.now(), parts: map[int]*part{}}
	a := encodeXML(http.StatusOK, struct {
		XMLName  xml.Name `xml:"InitiateMultipartUploadResult"`
		Bucket   string
		Key      string
		UploadID string `xml:"UploadId"`
	}{Bucket: b.name, Key: c.objectKey(), UploadID: id})
	if v := c.http.Header.Get("X-Amz-Checksum-Algorithm"); v != "" {
		a.header["x-amz-checksum-algorithm"] = v
	}
	return a, nil
}

// upload returns the bucket and the upload of the request. The caller holds s.mu.
func (c *call) upload() (*bucket, *upload, error) {
	b, err := c.bucket()
	if err != nil {
		return nil, nil, err
	}
	u := b.uploads[c.http.URL.Query().Get("uploadId")]
	if u == nil || u.key != c.objectKey() {
		return nil, nil, refuse("NoSuchUpload", "the upload does not exist; it may have been aborted or completed").with(http.StatusNotFound)
	}
	return b, u, nil
}

func (c *call) uploadPart() (any, error) {
	number, err := strconv.Atoi(c.http.URL.Query().Get("partNumber"))
	if err != nil || number < 1 || number > 10000 {
		return nil, mistake("InvalidArgument", "a part has a number from 1 to 10000, not %q", c.http.URL.Query().Get("partNumber"))
	}
	c.mu.Lock()
	_, _, err = c.upload()
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	p, err := c.receive()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, u, err := c.upload()
	if err != nil {
		p.file.Close()
		return nil, err
	}
	if old := u.parts[number]; old != nil {
		old.file.Close()
	}
	u.parts[number] = p
	a := &answer{status: http.StatusOK, header: maps.Clone(p.checksums)}
	a.header["ETag"] = `"` + hex.EncodeToString(p.md5) + `"`
	return a, nil
}

func (c *call) completeUpload() (any, error) {
	var in struct {
		Parts []struct {
			PartNumber        int
			ETag              string
			ChecksumCRC32     string
			ChecksumCRC32C    string
			ChecksumCRC64NVME string
			ChecksumSHA1      string
			ChecksumSHA256    string
		} `xml:"Part"`
	}
	if err := c.document(&in); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	b, u, err := c.upload()
	if err != nil {
		return nil, err
	}
	if len(in.Parts) == 0 {
		return nil, mistake("MalformedXML", "a completed upload has at least one part")
	}
	o := &object{modified: c.now(), contentType: u.contentType}
	for i, one := range in.Parts[1:] {
		if before := in.Parts[i].PartNumber; one.PartNumber <= before {
			return nil, mistake("InvalidPartOrder", "part %d does not follow part %d", one.PartNumber, before)
		}
	}
	all, used := md5.New(), map[int]bool{}
	for i, one := range in.Parts {
		p := u.parts[one.PartNumber]
		if p == nil || strings.Trim(one.ETag, `"`) != hex.EncodeToString(p.md5) {
			return nil, mistake("InvalidPart", "there is no part %d with ETag %s", one.PartNumber, one.ETag)
		}
		for name, v := range map[string]string{
			"crc32": one.ChecksumCRC32, "crc32c": one.ChecksumCRC32C, "crc64nvme": one.ChecksumCRC64NVME,
			"sha1": one.ChecksumSHA1, "sha256": one.ChecksumSHA256,
		} {
			if v != "" && v != p.checksums["x-amz-checksum-"+name] {
				return nil, mistake("InvalidPart", "part %d has no %s %s", one.PartNumber, name, v)
			}
		}
		if p.size < minPart && i < len(in.Parts)-1 {
			return nil, mistake("EntityTooSmall", "part %d has %d bytes, but all except the last need %d", one.PartNumber, p.size, minPart)
		}
		all.Write(p.md5)
		used[one.PartNumber] = true
		o.parts = append(o.parts, p)
		o.size += p.size
	}
	if v := c.http.Header.Get("X-Amz-Mp-Object-Size"); v != "" && v != strconv.FormatInt(o.size, 10) {
		return nil, mistake("InvalidRequest", "the object has %d bytes, not %s", o.size, v)
	}
	for number, p := range u.parts {
		if !used[number] {
			p.file.Close()
		}
	}
	o.etag = fmt.Sprintf(`"%x-%d"`, all.Sum(nil), len(o.parts))
	b.put(u.key, o)
	delete(b.uploads, c.http.URL.Query().Get("uploadId"))
	return struct {
		XMLName           xml.Name `xml:"CompleteMultipartUploadResult"`
		Bucket, Key, ETag string
	}{Bucket: b.name, Key: u.key, ETag: o.etag}, nil
}

func (c *call) abortUpload() (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, u, err := c.upload()
	if err != nil {
		return nil, err
	}
	u.close()
	delete(b.uploads, c.http.URL.Query().Get("uploadId"))
	return &answer{status: http.StatusNoContent}, nil
}

func (c *call) listParts() (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, u, err := c.upload()
	if err != nil {
		return nil, err
	}
	type item struct {
		PartNumber int
		ETag       string
		Size       int64
	}
	out := struct {
		XMLName     xml.Name `xml:"ListPartsResult"`
		Bucket, Key string
		IsTruncated bool
		Part        []item
	}{Bucket: b.name, Key: u.key}
	for _, number := range slices.Sorted(maps.Keys(u.parts)) {
		p := u.parts[number]
		out.Part = append(out.Part, item{number, `"` + hex.EncodeToString(p.md5) + `"`, p.size})
	}
	return out, nil
}

func (c *call) listUploads() (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := c.bucket()
	if err != nil {
		return nil, err
	}
	type item struct {
		Key       string
		UploadID  string `xml:"UploadId"`
		Initiated string
	}
	out := struct {
		XMLName     xml.Name `xml:"ListMultipartUploadsResult"`
		Bucket      string
		IsTruncated bool
		Upload      []item
	}{Bucket: b.name}
	for _, id := range slices.Sorted(maps.Keys(b.uploads)) {
		if u := b.uploads[id]; strings.HasPrefix(u.key, c.http.URL.Query().Get("prefix")) {
			out.Upload = append(out.Upload, item{u.key, id, isoTime(u.started)})
		}
	}
	return out, nil
}

func (c *call) listObjects() (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := c.bucket()
	if err != nil {
		return nil, err
	}
	q := c.http.URL.Query()
	limit := 1000
	if v := q.Get("max-keys"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 {
			return nil, mistake("InvalidArgument", "max-keys is %q", v)
		}
		limit = min(n, limit)
	}
	type item struct {
		Key, LastModified, ETag, StorageClass string
		Size                                  int64
	}
	out := struct {
		XMLName               xml.Name `xml:"ListBucketResult"`
		Name, Prefix          string
		KeyCount, MaxKeys     int
		IsTruncated           bool
		NextContinuationToken string `xml:",omitempty"`
		Contents              []item
	}{Name: b.name, Prefix: q.Get("prefix"), MaxKeys: limit}
	for _, key := range slices.Sorted(maps.Keys(b.objects)) {
		if !strings.HasPrefix(key, q.Get("prefix")) || key <= q.Get("continuation-token") {
			continue
		}
		if len(out.Contents) == limit {
			out.IsTruncated = true
			out.NextContinuationToken = out.Contents[limit-1].Key
			break
		}
		o := b.objects[key]
		out.Contents = append(out.Contents, item{key, isoTime(o.modified), o.etag, "STANDARD", o.size})
	}
	out.KeyCount = len(out.Contents)
	return out, nil
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

func (c *call) createBucket() (any, error) {
	var in struct{ LocationConstraint string }
	if err := c.document(&in); err != nil {
		return nil, err
	}
	name, _ := address(c.http)
	switch {
	case !bucketName.MatchString(name):
		return nil, mistake("InvalidBucketName", "the bucket name %q is not valid", name)
	case cmp.Or(in.LocationConstraint, "us-east-1") != c.Region:
		return nil, mistake("IllegalLocationConstraintException", "the location constraint %q does not fit the region %s", in.LocationConstraint, c.Region)
	}
	c.mu.Lock()
	there := c.buckets[name] != nil
	c.mu.Unlock()
	if there {
		return nil, refuse("BucketAlreadyOwnedByYou", "the bucket %s exists", name).with(http.StatusConflict)
	}
	c.CreateBucket(c.Region, name)
	return &answer{status: http.StatusOK, header: map[string]string{"Location": "/" + name}}, nil
}

func (c *call) deleteBucket() (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := c.bucket()
	if err != nil {
		return nil, err
	}
	if len(b.objects) > 0 {
		return nil, refuse("BucketNotEmpty", "the bucket %s is not empty", b.name).with(http.StatusConflict)
	}
	b.close()
	delete(c.buckets, b.name)
	return &answer{status: http.StatusNoContent}, nil
}

func (c *call) headBucket() (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := c.bucket()
	if err != nil {
		return nil, err
	}
	return &answer{status: http.StatusOK, header: map[string]string{"x-amz-bucket-region": b.region}}, nil
}

func (c *call) getBucketLocation() (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := c.bucket()
	if err != nil {
		return nil, err
	}
	location := b.region
	if location == "us-east-1" { // "the default region has a location constraint of null"
		location = ""
	}
	return struct {
		XMLName xml.Name `xml:"LocationConstraint"`
		Region  string   `xml:",chardata"`
	}{Region: location}, nil
}
