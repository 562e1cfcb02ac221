package awstest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// call is one request on its way through the fake.
type call struct {
	*Server
	Request
	knobs Knobs
	http  *http.Request
	scope scope
	body  []byte // all but S3's, which are read where they are used
	form  *form  // of query protocols
}

// answer is what a request gets, unless it is lost.
type answer struct {
	status int
	header map[string]string
	body   []byte
	stream io.Reader // instead of body
	length int64     // of stream
}

// A service is a protocol and its operations.
type service struct {
	// route names the operation and its resource; it may use all of the call but, for ebs and s3, the body.
	route func(*call) error
	// limit is how much of a body is read into memory before the operation is called; 0 leaves it to the operation.
	limit int
	// operations by name. Each returns an answer, or a value that encode makes one of.
	operations map[string]func(*call) (any, error)
	encode     func(*call, any) *answer
	fail       func(*call, *apiError) *answer
	// Its errors for what can befall every request.
	throttle, internal, denied, credentials apiError
}

var services map[string]*service

// A map that names the operations cannot be initialised where these use it.
func init() {
	services = map[string]*service{
		"ebs": ebsService(), "ec2": ec2Service(), "s3": s3Service(), "sts": stsService(), "iam": iamService(), "ssm": ssmService(),
	}
}

// bodies are buffers for requests; most hold a block.
var bodies = sync.Pool{New: func() any { return bytes.NewBuffer(make([]byte, 0, BlockSize+bytes.MinRead)) }}

// ServeHTTP answers a request to any of the services; the signature says which is meant.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{Server: s, http: r, knobs: s.Knobs()}
	var err error
	if c.scope, err = parseAuthorization(r.Header.Get("Authorization")); err != nil {
		c.Operation = r.Method + " " + r.URL.Path
		s.finish(c, violation("MissingAuthenticationToken", "%v", err).withStatus(http.StatusForbidden))
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	c.Service, c.Region = c.scope.service, c.scope.region
	svc := services[c.Service]
	if svc == nil {
		c.Operation = r.Method + " " + r.URL.Path
		err := violation("UnknownService", "awstest has no service %q", c.Service).withStatus(http.StatusNotImplemented)
		s.finish(c, err)
		http.Error(w, err.Error(), err.status)
		return
	}
	early := c.Service != "ebs" && c.Service != "s3" // the body says what is asked
	if early {
		if err = c.read(svc.limit); err == nil {
			err = svc.route(c)
		}
	} else {
		err = svc.route(c)
	}
	if c.Operation == "" {
		c.Operation = r.Method + " " + r.URL.Path
	}
	s.begin(c)
	if wait(r, s.done, c.knobs.Latency); r.Context().Err() != nil {
		s.finish(c, nil)
		reset(w)
		return
	}

	if err == nil {
		switch c.Fault {
		case Reset:
			s.finish(c, nil)
			reset(w)
			return
		case Stall:
			s.finish(c, nil)
			s.stall(w, r)
			return
		case Throttle, Internal:
			// The body is read so that the client gets to hear it.
			_, _ = io.Copy(io.Discard, r.Body)
			e := svc.internal
			if c.Fault == Throttle {
				e = svc.throttle
			}
			s.finish(c, &e)
			write(w, r, svc.fail(c, &e))
			return
		}
	}
	if !early && err == nil && svc.limit > 0 {
		buffer := bodies.Get().(*bytes.Buffer)
		buffer.Reset()
		defer bodies.Put(buffer)
		err = c.readInto(buffer, svc.limit)
	}
	if err == nil {
		err = s.authenticate(c, svc)
	}
	var result any
	if err == nil {
		result, err = svc.operations[c.Operation](c)
	}
	if err != nil && errors.Is(err, errGone) {
		s.finish(c, nil)
		reset(w)
		return
	}
	var out *answer
	if err == nil {
		var ok bool
		if out, ok = result.(*answer); !ok {
			out = svc.encode(c, result)
		}
	} else {
		var e *apiError
		if !errors.As(err, &e) {
			e = newError("InternalFailure", "awstest: %v", err).withStatus(http.StatusInternalServerError)
		}
		err = e
		out = svc.fail(c, e)
	}
	c.Status = out.status
	switch {
	case c.Fault == LostReset:
		s.finish(c, err)
		reset(w)
	case c.Fault == LostStall:
		s.finish(c, err)
		s.stall(w, r)
	case c.Fault == LostError:
		s.finish(c, err)
		write(w, r, svc.fail(c, &svc.internal))
	default:
		s.finish(c, err)
		write(w, r, out)
	}
}

// begin counts the request and decides its fate.
func (s *Server) begin(c *call) {
	s.mu.Lock()
	key := c.key()
	s.seen[key]++
	c.Attempt = s.seen[key]
	s.mu.Unlock()
	if c.knobs.Faults != nil {
		c.Fault = c.knobs.Faults(c.Request)
	}
}

// finish puts the request into the log.
func (s *Server) finish(c *call, err error) {
	var e *apiError
	if errors.As(err, &e) {
		c.Error, c.Status = e.code, e.status
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, c.Request)
	if e != nil && e.violation {
		s.violations = append(s.violations, Violation{c.Request, e.Error()})
	}
}

// violate notes a mistake that AWS does not answer with an error.
func (c *call) violate(format string, args ...any) {
	c.violations = append(c.violations, Violation{c.Request, fmt.Sprintf(format, args...)})
}

// read takes the whole body into memory.
func (c *call) read(limit int) error { return c.readInto(&bytes.Buffer{}, limit) }

func (c *call) readInto(buffer *bytes.Buffer, limit int) error {
	if _, err := buffer.ReadFrom(io.LimitReader(c.http.Body, int64(limit)+1)); err != nil {
		return errGone
	}
	c.body = buffer.Bytes()
	if len(c.body) > limit {
		return violation("RequestEntityTooLarge", "the body has more than %d bytes", limit).withStatus(http.StatusRequestEntityTooLarge)
	}
	return nil
}

// authenticate checks signature, region and permission.
func (s *Server) authenticate(c *call, svc *service) error {
	if c.scope.keyID != AccessKeyID {
		e := svc.credentials
		return &e
	}
	payloads := []string{c.http.Header.Get("X-Amz-Content-Sha256")}
	if payloads[0] == "" {
		sum := sha256.Sum256(c.body)
		payloads[0] = hex.EncodeToString(sum[:])
		if c.Operation == "PutSnapshotBlock" { // its checksum header is signed instead
			payloads = append(payloads, unsignedPayload)
		}
	} else if c.Service != "s3" && payloads[0] != unsignedPayload {
		if sum := sha256.Sum256(c.body); payloads[0] != hex.EncodeToString(sum[:]) {
			return violation("InvalidSignatureException", "X-Amz-Content-Sha256 is not the body's digest").withStatus(http.StatusForbidden)
		}
	}
	if err := c.scope.verify(c.http, payloads...); err != nil {
		return violation("SignatureDoesNotMatch", "%v", err).withStatus(http.StatusForbidden)
	}
	if !slices.Contains(regions, c.Region) {
		e := svc.credentials
		e.message = "there is no region " + c.Region
		return &e
	}
	if c.denied() {
		e := svc.denied
		e.message = fmt.Sprintf("user %s is not authorized to perform %s:%s", userARN, c.Service, c.Operation)
		return &e
	}
	return nil
}

func (c *call) denied() bool {
	return slices.ContainsFunc(c.knobs.Denied, func(d string) bool {
		return d == c.Service+":"+c.Operation || d == c.Service+":*"
	})
}

// wait passes time unless the request or the fake ends.
func wait(r *http.Request, done chan struct{}, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
	case <-done:
	}
}

// stall leaves a request without an answer.
func (s *Server) stall(w http.ResponseWriter, r *http.Request) {
	// net/http notices that the client is gone only once the body is read.
	_, _ = io.Copy(io.Discard, r.Body)
	select {
	case <-r.Context().Done():
	case <-s.done:
	}
	reset(w)
}

// reset drops the connection with a TCP reset.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	conn.Close()
}

func write(w http.ResponseWriter, r *http.Request, a *answer) {
	for name, value := range a.header {
		w.Header()[name] = []string{value} // some clients care for the case
	}
	w.Header().Set("X-Amzn-Requestid", requestID)
	if a.stream != nil {
		w.Header().Set("Content-Length", fmt.Sprint(a.length))
		w.WriteHeader(a.status)
		if r.Method != http.MethodHead {
			_, _ = io.Copy(w, a.stream)
		}
		return
	}
	if r.Method != http.MethodHead {
		w.Header().Set("Content-Length", fmt.Sprint(len(a.body)))
	}
	w.WriteHeader(a.status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(a.body)
	}
}

const (
	requestID = "00000000-0000-4000-8000-000000000000"
	userARN   = "arn:aws:iam::" + Account + ":user/slipway"
)

// encodeXML writes v; the name of its element is in its type.
func encodeXML(status int, v any) *answer {
	body, err := xml.Marshal(v)
	if err != nil {
		panic(err) // a type of this package that XML cannot hold
	}
	return &answer{status: status, header: map[string]string{"Content-Type": "text/xml"}, body: append([]byte(xml.Header), body...)}
}

func encodeJSON(status int, contentType string, v any) *answer {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err) // a type of this package that JSON cannot hold
	}
	return &answer{status: status, header: map[string]string{"Content-Type": contentType}, body: body}
}

// decodeJSON reads a body strictly: unknown members are the client's mistake.
func decodeJSON(body []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return violation("ValidationException", "the body is not as in the model: %v", err)
	}
	return nil
}

// operations lists what a service can do, for errors.
func (svc *service) names() string {
	return strings.Join(slices.Sorted(maps.Keys(svc.operations)), ", ")
}
