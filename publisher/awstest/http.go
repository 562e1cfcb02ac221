package awstest

import (
	"bytes"
	"cmp"
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

// A call is one request on its way through the fake.
type call struct {
	*Server
	Request
	knobs    Knobs
	policies []policy
	http     *http.Request
	scope    scope
	body     []byte // of all services but S3, whose operations read it themselves
	form     *form  // of query protocols
}

// An answer is the response to a request.
type answer struct {
	status int
	header map[string]string
	body   []byte
	stream io.Reader // replaces body
	length int64     // of stream
}

// A service is a protocol and its operations.
type service struct {
	// bodyFirst means that route needs the body.
	bodyFirst bool
	// route sets the call's operation and resource.
	route func(*call) error
	// limit is the maximum length of a body in bytes. With 0, operations read
	// the body themselves.
	limit int
	// operations by name. Each returns an *answer, or a value for encode.
	operations map[string]func(*call) (any, error)
	encode     func(*call, any) *answer
	fail       func(*call, *apiError) *answer
	// The errors that all operations have in common.
	throttle, internal, denied, credentials, expired apiError
}

// names returns the operations of the service, for error messages.
func (svc *service) names() string {
	return strings.Join(slices.Sorted(maps.Keys(svc.operations)), ", ")
}

var services map[string]*service

// The operations use the map, so that its declaration cannot name them.
func init() {
	services = map[string]*service{
		"ebs": ebsService(), "ec2": ec2Service(), "s3": s3Service(), "sts": stsService(), "iam": iamService(), "ssm": ssmService(),
		"autoscaling": autoscalingService(),
	}
}

// ServeHTTP answers a request to any of the services. The signature selects the
// service and the region.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	conf := s.knobs.Load()
	c := &call{Server: s, Request: Request{Proto: r.Proto}, http: r, knobs: conf.Knobs, policies: conf.policies}
	svc, err := c.accept()
	if svc == nil { // no service, no format for errors
		s.finish(c, err)
		http.Error(w, err.Error(), c.Status)
		return
	}
	s.begin(c)
	if wait(r, s.done, c.knobs.Latency); r.Context().Err() != nil {
		s.finish(c, nil)
		reset(w)
		return
	}
	if err == nil && c.Fault != None && !c.Fault.lost() {
		c.inject(svc, w)
		return
	}
	var out *answer
	if err == nil {
		out, err = c.run(svc)
	}
	if errors.Is(err, errGone) {
		s.finish(c, nil)
		reset(w)
		return
	}
	if err != nil {
		var e *apiError
		if !errors.As(err, &e) {
			e = newError("InternalFailure", "awstest: %v", err).withStatus(http.StatusInternalServerError)
		}
		out, err = svc.fail(c, e), e
	}
	c.Status = out.status
	s.finish(c, err)
	switch c.Fault {
	case LostReset:
		reset(w)
	case LostStall:
		s.stall(w, r)
	case LostError:
		write(w, r, svc.fail(c, &svc.internal))
	default:
		write(w, r, out)
	}
}

// accept finds the service and the operation of the request. The service is nil
// if the fake does not have it.
func (c *call) accept() (*service, error) {
	c.Operation = c.http.Method + " " + c.http.URL.Path // until it is known
	var err error
	if c.scope, err = parseAuthorization(c.http.Header.Get("Authorization")); err != nil {
		return nil, violation("MissingAuthenticationToken", "%v", err).withStatus(http.StatusForbidden)
	}
	c.Service, c.Region = c.scope.service, c.scope.region
	svc := services[c.Service]
	if svc == nil {
		return nil, violation("UnknownService", "awstest does not implement the service %q", c.Service).withStatus(http.StatusNotImplemented)
	}
	if svc.bodyFirst {
		if err := c.read(&bytes.Buffer{}, svc.limit); err != nil {
			return svc, err
		}
	}
	address := c.Operation
	c.Operation = ""
	err = svc.route(c)
	c.Operation = cmp.Or(c.Operation, address)
	return svc, err
}

// inject answers the request with a fault that keeps it from taking effect.
func (c *call) inject(svc *service, w http.ResponseWriter) {
	switch c.Fault {
	case Reset:
		c.finish(c, nil)
		reset(w)
	case Stall:
		c.finish(c, nil)
		c.stall(w, c.http)
	case Throttle, Internal:
		// A client may not read the answer before it has sent the body.
		_, _ = io.Copy(io.Discard, c.http.Body)
		e := svc.internal
		if c.Fault == Throttle {
			e = svc.throttle
		}
		c.finish(c, &e)
		write(w, c.http, svc.fail(c, &e))
	}
}

// bodies are buffers for requests, most of which hold a block.
var bodies = sync.Pool{New: func() any { return bytes.NewBuffer(make([]byte, 0, BlockSize+bytes.MinRead)) }}

// run authenticates the request and calls its operation.
func (c *call) run(svc *service) (*answer, error) {
	if !svc.bodyFirst && svc.limit > 0 {
		buffer := bodies.Get().(*bytes.Buffer)
		buffer.Reset()
		defer bodies.Put(buffer)
		if err := c.read(buffer, svc.limit); err != nil {
			return nil, err
		}
	}
	if err := c.authenticate(svc); err != nil {
		return nil, err
	}
	result, err := svc.operations[c.Operation](c)
	if err != nil {
		return nil, err
	}
	if a, ok := result.(*answer); ok {
		return a, nil
	}
	return svc.encode(c, result), nil
}

// begin counts the request and decides whether it fails.
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

// finish logs the request.
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

// violate records a violation that AWS does not answer with an error. The
// caller holds s.mu.
func (c *call) violate(format string, args ...any) {
	c.violations = append(c.violations, Violation{c.Request, fmt.Sprintf(format, args...)})
}

// read reads the body into buffer.
func (c *call) read(buffer *bytes.Buffer, limit int) error {
	if _, err := buffer.ReadFrom(io.LimitReader(c.http.Body, int64(limit)+1)); err != nil {
		return errGone
	}
	c.body = buffer.Bytes()
	if len(c.body) > limit {
		return violation("RequestEntityTooLarge", "the body has more than %d bytes", limit).withStatus(http.StatusRequestEntityTooLarge)
	}
	return nil
}

// authenticate checks the credentials, signature, region and permission.
func (c *call) authenticate(svc *service) error {
	if c.scope.keyID != AccessKeyID {
		e := svc.credentials
		return &e
	}
	switch token, want := c.http.Header.Get("X-Amz-Security-Token"), c.knobs.SessionToken; {
	case token == want:
	case token == "" || want == "":
		e := svc.credentials
		return &e
	default:
		e := svc.expired
		return &e
	}
	payloads := []string{c.http.Header.Get("X-Amz-Content-Sha256")}
	if payloads[0] == "" {
		sum := sha256.Sum256(c.body)
		payloads[0] = hex.EncodeToString(sum[:])
		if c.Operation == "PutSnapshotBlock" { // clients sign its checksum header instead
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
	if !slices.Contains(regions, c.Region) || slices.Contains(c.knobs.NotOptedIn, c.Region) {
		e := svc.credentials
		e.message = "unknown or disabled region " + c.Region
		return &e
	}
	if c.denied() {
		e := svc.denied
		e.message = fmt.Sprintf("user %s is not authorized to perform %s:%s", userARN, c.Service, c.Operation)
		return &e
	}
	return c.authorize(svc)
}

func (c *call) denied() bool {
	return slices.ContainsFunc(c.knobs.Denied, func(d string) bool {
		return d == c.Service+":"+c.Operation || d == c.Service+":*"
	})
}

// wait waits for d, or until the request or the fake ends.
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

// stall waits until the client or the fake gives up on the request.
func (s *Server) stall(w http.ResponseWriter, r *http.Request) {
	// net/http detects that the client disconnected only once the body is read.
	_, _ = io.Copy(io.Discard, r.Body)
	select {
	case <-r.Context().Done():
	case <-s.done:
	}
	reset(w)
}

// reset resets the TCP connection, or the stream of HTTP/2.
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
		w.Header()[name] = []string{value} // some clients depend on the case
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

// encodeXML returns v as XML. The type of v names the element.
func encodeXML(status int, v any) *answer {
	body, err := xml.Marshal(v)
	if err != nil {
		panic(err) // only for types that XML cannot represent
	}
	return &answer{status: status, header: map[string]string{"Content-Type": "text/xml"}, body: append([]byte(xml.Header), body...)}
}

func encodeJSON(status int, contentType string, v any) *answer {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err) // only for types that JSON cannot represent
	}
	return &answer{status: status, header: map[string]string{"Content-Type": contentType}, body: body}
}

// decodeJSON decodes a body. Unknown members are violations.
func decodeJSON(body []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return violation("ValidationException", "the body does not match the model: %v", err)
	}
	return nil
}
