package awstest

import (
	"bufio"
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// newChecksums returns the checksum algorithms that the fake knows, by the
// header that carries them ("Checking object integrity in Amazon S3").
func newChecksums() map[string]hash.Hash {
	return map[string]hash.Hash{
		"x-amz-checksum-crc32":     crc32.NewIEEE(),
		"x-amz-checksum-crc32c":    crc32.New(crc32.MakeTable(crc32.Castagnoli)),
		"x-amz-checksum-crc64nvme": crc64.New(crc64.MakeTable(0x9a6c9329ac4bc9b5)),
		"x-amz-checksum-sha1":      sha1.New(),
		"x-amz-checksum-sha256":    sha256.New(),
	}
}

const maxPart = 5 << 30 // "Amazon S3 multipart upload limits"; of PutObject too

// receive stores the body of a request and checks every digest that comes with
// it.
func (c *call) receive() (*part, error) {
	header := c.http.Header.Clone() // the body may end with more headers
	body, length, err := c.payload(header)
	if err != nil {
		return nil, err
	}
	file, err := anonymous()
	if err != nil {
		return nil, err
	}
	contentMD5, contentSHA256 := md5.New(), sha256.New()
	writers, sums := []io.Writer{file, contentMD5, contentSHA256}, newChecksums()
	for name, h := range sums {
		if header.Get(name) == "" && !strings.EqualFold(header.Get("X-Amz-Trailer"), name) {
			delete(sums, name)
			continue
		}
		writers = append(writers, h)
	}
	p := &part{file: file, checksums: map[string]string{}}
	p.size, err = io.Copy(io.MultiWriter(writers...), body)
	p.md5 = contentMD5.Sum(nil)
	declared := header.Get("X-Amz-Content-Sha256")
	var e *apiError
	switch {
	case errors.As(err, &e):
	case err != nil:
		err = errGone
	case p.size != length:
		err = violation("IncompleteBody", "the body has %d bytes, not %d", p.size, length)
	case !strings.HasPrefix(declared, streaming) && declared != unsignedPayload && declared != hex.EncodeToString(contentSHA256.Sum(nil)):
		err = violation("XAmzContentSHA256Mismatch", "x-amz-content-sha256 is not the body's digest")
	case header.Get("Content-Md5") != "" && header.Get("Content-Md5") != base64.StdEncoding.EncodeToString(p.md5):
		err = violation("BadDigest", "Content-MD5 is not the body's digest")
	}
	for name, h := range sums {
		own := base64.StdEncoding.EncodeToString(h.Sum(nil))
		if err == nil && own != header.Get(name) {
			err = violation("BadDigest", "%s is %q, but the body's is %s", name, header.Get(name), own)
		}
		p.checksums[name] = own
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return p, nil
}

const streaming = "STREAMING-" // starts x-amz-content-sha256 when the body is in chunks

// payload returns the decoded body of a request and its length in bytes.
// Trailing headers are added to header at the end of the body.
func (c *call) payload(header http.Header) (body io.Reader, length int64, err error) {
	body, length = c.http.Body, c.http.ContentLength
	switch payload := header.Get("X-Amz-Content-Sha256"); {
	case payload == streaming+"UNSIGNED-PAYLOAD-TRAILER":
		body = &chunked{r: bufio.NewReader(body), trailer: header}
		if length, err = strconv.ParseInt(header.Get("X-Amz-Decoded-Content-Length"), 10, 64); err != nil {
			return nil, 0, violation("MissingContentLength", "aws-chunked requires x-amz-decoded-content-length").withStatus(http.StatusLengthRequired)
		}
	case strings.HasPrefix(payload, streaming):
		return nil, 0, violation("NotImplemented", "awstest does not implement %s", payload).withStatus(http.StatusNotImplemented)
	case length < 0:
		return nil, 0, violation("MissingContentLength", "you must provide the Content-Length HTTP header").withStatus(http.StatusLengthRequired)
	}
	if length > maxPart {
		return nil, 0, violation("EntityTooLarge", "one request uploads at most %d bytes, not %d", maxPart, length)
	}
	return body, length, nil
}

// chunked decodes the aws-chunked encoding with a trailer ("Signature
// calculations for trailing headers").
type chunked struct {
	r       *bufio.Reader
	left    int64 // of the current chunk
	done    bool
	trailer http.Header // receives the trailing headers
}

func (c *chunked) Read(p []byte) (int, error) {
	for c.left == 0 && !c.done {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	if c.done {
		return 0, io.EOF
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}

// next reads the header of a chunk, and after the last one the trailer.
func (c *chunked) next() error {
	line, err := c.line()
	if err != nil || line == "" { // the end of the previous chunk
		return err
	}
	size, _, _ := strings.Cut(line, ";")
	if c.left, err = strconv.ParseInt(size, 16, 64); err != nil || c.left < 0 {
		return violation("InvalidRequest", "aws-chunked: invalid chunk size %q", line)
	}
	for c.left == 0 && !c.done {
		line, err := c.line()
		if err != nil && err != io.EOF {
			return err
		}
		if c.done = line == ""; !c.done {
			name, value, _ := strings.Cut(line, ":")
			c.trailer.Set(name, strings.TrimSpace(value))
		}
	}
	return nil
}

func (c *chunked) line() (string, error) {
	line, err := c.r.ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err
}

// document decodes an XML body into v. An empty body leaves v unchanged.
func (c *call) document(v any) error {
	body, err := io.ReadAll(io.LimitReader(c.http.Body, 1<<20))
	if err != nil {
		return errGone
	}
	sum := sha256.Sum256(body)
	if payload := c.http.Header.Get("X-Amz-Content-Sha256"); payload != unsignedPayload && payload != hex.EncodeToString(sum[:]) {
		return violation("XAmzContentSHA256Mismatch", "x-amz-content-sha256 is not the body's digest")
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	if err := xml.Unmarshal(body, v); err != nil {
		return violation("MalformedXML", "%v", err)
	}
	return nil
}
