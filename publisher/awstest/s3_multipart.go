package awstest

import (
	"crypto/md5"
	"encoding/xml"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// minPart is the least size of a part in bytes. The last part of an upload may
// be smaller ("Amazon S3 multipart upload limits").
const minPart = 5 << 20

// An upload is a multipart upload that was neither completed nor aborted.
type upload struct {
	key, contentType string
	started          time.Time
	parts            map[int]*part // by number
}

func (u *upload) close() { closeAll(slices.Collect(maps.Values(u.parts))) }

func (c *call) createUpload(t target) (any, error) {
	id := c.region(c.Region).id("upload")
	t.uploads[id] = &upload{key: t.key, contentType: c.http.Header.Get("Content-Type"), started: c.now(), parts: map[int]*part{}}
	a := encodeXML(http.StatusOK, struct {
		XMLName  xml.Name `xml:"InitiateMultipartUploadResult"`
		Bucket   string
		Key      string
		UploadID string `xml:"UploadId"`
	}{Bucket: t.name, Key: t.key, UploadID: id})
	if v := c.http.Header.Get("X-Amz-Checksum-Algorithm"); v != "" {
		a.header["x-amz-checksum-algorithm"] = v
	}
	return a, nil
}

func (c *call) uploadPart(t target, p *part) (any, error) {
	text := c.http.URL.Query().Get("partNumber")
	number, err := strconv.Atoi(text)
	if err != nil || number < 1 || number > 10000 {
		return nil, violation("InvalidArgument", "the part number is %q, not 1 to 10000", text)
	}
	if old := t.upload.parts[number]; old != nil {
		old.file.Close()
	}
	t.upload.parts[number] = p
	return p.answer(), nil
}

// completedPart is how CompleteMultipartUpload names a part.
type completedPart struct {
	PartNumber int
	ETag       string
	Checksums  []struct { // ChecksumCRC32 and so on
		XMLName xml.Name
		Value   string `xml:",chardata"`
	} `xml:",any"`
}

// check compares what the client says about a part with what it uploaded.
func (in completedPart) check(p *part) error {
	if p == nil || strings.Trim(in.ETag, `"`) != strings.Trim(p.etag(), `"`) {
		return violation("InvalidPart", "there is no part %d with ETag %s", in.PartNumber, in.ETag)
	}
	for _, sum := range in.Checksums {
		name, ok := strings.CutPrefix(sum.XMLName.Local, "Checksum")
		if !ok {
			return violation("MalformedXML", "unknown element %s in part %d", sum.XMLName.Local, in.PartNumber)
		}
		if sum.Value != p.checksums["x-amz-checksum-"+strings.ToLower(name)] {
			return violation("InvalidPart", "part %d has no %s %s", in.PartNumber, name, sum.Value)
		}
	}
	return nil
}

func (c *call) completeUpload() (any, error) {
	var in struct {
		Parts []completedPart `xml:"Part"`
	}
	if err := c.document(&in); err != nil {
		return nil, err
	}
	return onTarget(func(c *call, t target) (any, error) { return c.completeParts(t, in.Parts) })(c)
}

func (c *call) completeParts(t target, list []completedPart) (any, error) {
	if len(list) == 0 {
		return nil, violation("MalformedXML", "the list of parts is empty")
	}
	for i, in := range list[1:] {
		if before := list[i].PartNumber; in.PartNumber <= before {
			return nil, violation("InvalidPartOrder", "part %d does not follow part %d", in.PartNumber, before)
		}
	}
	o, sums := &object{modified: c.now(), contentType: t.upload.contentType}, md5.New()
	for i, in := range list {
		p := t.upload.parts[in.PartNumber]
		if err := in.check(p); err != nil {
			return nil, err
		}
		if p.size < minPart && i < len(list)-1 {
			return nil, violation("EntityTooSmall", "part %d has %d bytes; all parts but the last require %d", in.PartNumber, p.size, minPart)
		}
		sums.Write(p.md5)
		o.parts = append(o.parts, p)
		o.size += p.size
	}
	if v := c.http.Header.Get("X-Amz-Mp-Object-Size"); v != "" && v != strconv.FormatInt(o.size, 10) {
		return nil, violation("InvalidRequest", "the object has %d bytes, not %s", o.size, v)
	}
	for _, p := range t.upload.parts {
		if !slices.Contains(o.parts, p) {
			p.file.Close()
		}
	}
	o.etag = fmt.Sprintf(`"%x-%d"`, sums.Sum(nil), len(o.parts))
	t.put(t.key, o)
	delete(t.uploads, t.uploadID)
	return struct {
		XMLName           xml.Name `xml:"CompleteMultipartUploadResult"`
		Bucket, Key, ETag string
	}{Bucket: t.name, Key: t.key, ETag: o.etag}, nil
}

func (c *call) abortUpload(t target) (any, error) {
	t.upload.close()
	delete(t.uploads, t.uploadID)
	return &answer{status: http.StatusNoContent}, nil
}

func (c *call) listParts(t target) (any, error) {
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
	}{Bucket: t.name, Key: t.key}
	for _, number := range slices.Sorted(maps.Keys(t.upload.parts)) {
		p := t.upload.parts[number]
		out.Part = append(out.Part, item{number, p.etag(), p.size})
	}
	return out, nil
}

func (c *call) listUploads(t target) (any, error) {
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
	}{Bucket: t.name}
	for _, id := range slices.Sorted(maps.Keys(t.uploads)) {
		if u := t.uploads[id]; strings.HasPrefix(u.key, c.http.URL.Query().Get("prefix")) {
			out.Upload = append(out.Upload, item{u.key, id, isoTime(u.started)})
		}
	}
	return out, nil
}
