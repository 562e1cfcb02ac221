package awstest

import (
	"cmp"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// An object is what one PutObject or one multipart upload stored.
type object struct {
	parts       []*part
	size        int64
	etag        string
	contentType string
	checksums   map[string]string // of an object that was not uploaded in parts
	modified    time.Time
}

// A part is the body of one request, in an anonymous file.
type part struct {
	file      *os.File
	size      int64
	md5       []byte
	checksums map[string]string // by header name
}

func (p *part) etag() string { return `"` + hex.EncodeToString(p.md5) + `"` }

// answer acknowledges that the part was stored.
func (p *part) answer() *answer {
	a := &answer{status: http.StatusOK, header: maps.Clone(p.checksums)}
	a.header["ETag"] = p.etag()
	return a
}

func closeAll(parts []*part) {
	for _, p := range parts {
		p.file.Close()
	}
}

func (o *object) reader() io.Reader {
	var all []io.Reader
	for _, p := range o.parts {
		all = append(all, io.NewSectionReader(p.file, 0, p.size))
	}
	return io.MultiReader(all...)
}

func (b *bucket) put(key string, o *object) {
	b.remove(key)
	b.objects[key] = o
}

func (b *bucket) remove(key string) {
	if o := b.objects[key]; o != nil {
		closeAll(o.parts)
		delete(b.objects, key)
	}
}

func (c *call) putObject(t target, p *part) (any, error) {
	if c.http.Header.Get("If-None-Match") == "*" && t.objects[t.key] != nil {
		return nil, newError("PreconditionFailed", "the object exists").withStatus(http.StatusPreconditionFailed)
	}
	t.put(t.key, &object{
		parts: []*part{p}, size: p.size, etag: p.etag(), modified: c.now(), checksums: p.checksums,
		contentType: c.http.Header.Get("Content-Type"),
	})
	return p.answer(), nil
}

func (c *call) getObject(t target) (any, error) {
	o := t.objects[t.key]
	if o == nil {
		return nil, newError("NoSuchKey", "the key %s does not exist", t.key).withStatus(http.StatusNotFound)
	}
	a := &answer{status: http.StatusOK, stream: o.reader(), length: o.size, header: map[string]string{
		"ETag": o.etag, "Last-Modified": o.modified.Format(http.TimeFormat), "Content-Type": cmp.Or(o.contentType, "binary/octet-stream"),
		"Accept-Ranges": "bytes",
	}}
	if c.http.Header.Get("X-Amz-Checksum-Mode") == "ENABLED" {
		maps.Copy(a.header, o.checksums)
	}
	if text := c.http.Header.Get("Range"); text != "" {
		from, to := int64(0), o.size-1
		if n, _ := fmt.Sscanf(text, "bytes=%d-%d", &from, &to); n == 0 || from < 0 || from > to || from >= o.size {
			return nil, newError("InvalidRange", "the range %q is not satisfiable", text).withStatus(http.StatusRequestedRangeNotSatisfiable)
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

func (c *call) deleteObject(t target) (any, error) {
	t.remove(t.key)
	return &answer{status: http.StatusNoContent}, nil
}

func (c *call) listObjects(t target) (any, error) {
	q := c.http.URL.Query()
	limit := 1000
	if v := q.Get("max-keys"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 {
			return nil, violation("InvalidArgument", "max-keys is %q", v)
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
	}{Name: t.name, Prefix: q.Get("prefix"), MaxKeys: limit}
	for _, key := range slices.Sorted(maps.Keys(t.objects)) {
		if !strings.HasPrefix(key, out.Prefix) || key <= q.Get("continuation-token") {
			continue
		}
		if out.KeyCount == limit {
			out.IsTruncated = true
			if limit > 0 {
				out.NextContinuationToken = out.Contents[limit-1].Key
			}
			break
		}
		o := t.objects[key]
		out.Contents = append(out.Contents, item{key, isoTime(o.modified), o.etag, "STANDARD", o.size})
		out.KeyCount++
	}
	return out, nil
}
