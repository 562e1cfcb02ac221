package awstest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Signature Version 4, according to "AWS Signature Version 4 for API requests"
// in the IAM user guide.
const (
	algorithm       = "AWS4-HMAC-SHA256"
	timeFormat      = "20060102T150405Z"
	unsignedPayload = "UNSIGNED-PAYLOAD"
	maxSkew         = 15 * time.Minute
)

// A scope is the content of an Authorization header.
type scope struct {
	keyID, date, region, service string
	signed                       []string // names of headers, in lower case
	signature                    string
}

func parseAuthorization(header string) (scope, error) {
	var sc scope
	if header == "" {
		return sc, fmt.Errorf("no Authorization header")
	}
	rest, ok := strings.CutPrefix(header, algorithm+" ")
	if !ok {
		return sc, fmt.Errorf("the Authorization header does not start with %s", algorithm)
	}
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch name {
		case "Credential":
			fields := strings.Split(value, "/")
			if len(fields) != 5 || fields[4] != "aws4_request" {
				return sc, fmt.Errorf("credential %q is not KEY/DATE/REGION/SERVICE/aws4_request", value)
			}
			sc.keyID, sc.date, sc.region, sc.service = fields[0], fields[1], fields[2], fields[3]
		case "SignedHeaders":
			sc.signed = strings.Split(value, ";")
		case "Signature":
			sc.signature = value
		default:
			return sc, fmt.Errorf("unknown part %q in Authorization", name)
		}
	}
	switch {
	case sc.service == "":
		return sc, fmt.Errorf("no Credential in Authorization")
	case !slices.IsSorted(sc.signed) || !slices.Contains(sc.signed, "host"):
		return sc, fmt.Errorf("SignedHeaders %q must be sorted and include host", sc.signed)
	case len(sc.signature) != 2*sha256.Size:
		return sc, fmt.Errorf("the signature has %d characters, not %d", len(sc.signature), 2*sha256.Size)
	}
	return sc, nil
}

// verify checks the date of a request, that all x-amz- headers are signed, and
// that the signature matches for one of the payload hashes.
func (sc scope) verify(r *http.Request, payloads ...string) error {
	stamp := r.Header.Get("X-Amz-Date")
	date, err := time.Parse(timeFormat, stamp)
	if err != nil {
		return fmt.Errorf("X-Amz-Date %q is not a time like %s", stamp, timeFormat)
	}
	if skew := time.Since(date).Abs(); skew > maxSkew {
		return fmt.Errorf("the request is dated %s, which differs from the current time by %s", stamp, skew)
	}
	if sc.date != stamp[:8] {
		return fmt.Errorf("the date %s of the credential differs from X-Amz-Date %s", sc.date, stamp)
	}
	for name := range r.Header {
		if name = strings.ToLower(name); strings.HasPrefix(name, "x-amz-") && !slices.Contains(sc.signed, name) {
			return fmt.Errorf("header %s is not signed", name)
		}
	}
	for _, payload := range payloads {
		if hmac.Equal([]byte(sc.sign(r, stamp, payload)), []byte(sc.signature)) {
			return nil
		}
	}
	return fmt.Errorf("the signature does not match")
}

// sign computes the signature of a request.
func (sc scope) sign(r *http.Request, stamp, payload string) string {
	path := r.URL.EscapedPath()
	if path == "" {
		path = "/"
	}
	if sc.service != "s3" { // the other services encode the path twice
		path = escape(path, true)
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s\n%s\n%s\n", r.Method, path, canonicalQuery(r.URL.RawQuery))
	for _, name := range sc.signed {
		fmt.Fprintf(&text, "%s:%s\n", name, canonicalHeader(r, name))
	}
	fmt.Fprintf(&text, "\n%s\n%s", strings.Join(sc.signed, ";"), payload)
	sum := sha256.Sum256([]byte(text.String()))

	where := strings.Join([]string{sc.date, sc.region, sc.service, "aws4_request"}, "/")
	toSign := strings.Join([]string{algorithm, stamp, where, hex.EncodeToString(sum[:])}, "\n")
	key := []byte("AWS4" + SecretAccessKey)
	for _, part := range []string{sc.date, sc.region, sc.service, "aws4_request", toSign} {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(part))
		key = mac.Sum(nil)
	}
	return hex.EncodeToString(key)
}

func canonicalHeader(r *http.Request, name string) string {
	switch name { // net/http removes these two from the headers
	case "host":
		return r.Host
	case "content-length":
		return strconv.FormatInt(r.ContentLength, 10)
	}
	var values []string
	for _, v := range r.Header.Values(name) {
		values = append(values, strings.Join(strings.Fields(v), " "))
	}
	return strings.Join(values, ",")
}

func canonicalQuery(raw string) string {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return raw
	}
	var pairs []string
	for name, list := range values {
		for _, value := range list {
			pairs = append(pairs, escape(name, false)+"="+escape(value, false))
		}
	}
	slices.Sort(pairs)
	return strings.Join(pairs, "&")
}

// escape percent-encodes all characters but those that RFC 3986 calls
// unreserved, and slashes if they are excluded.
func escape(text string, keepSlashes bool) string {
	var out strings.Builder
	for i := range len(text) {
		c := text[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-_.~", c) >= 0, c == '/' && keepSlashes:
			out.WriteByte(c)
		default:
			fmt.Fprintf(&out, "%%%02X", c)
		}
	}
	return out.String()
}
