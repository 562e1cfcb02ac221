// Package awstest is a strict fake of the part of AWS that makes machine images: EBS direct, EC2's snapshots, images and
// import tasks, S3, STS, IAM and SSM. It speaks the real protocols over HTTP, so any client reaches it by the standard
// variables (AWS_ENDPOINT_URL and so on; see [Server.Env]) and needs no hook for tests:
//
//	fake := awstest.Start(t, awstest.Knobs{})
//	cmd := exec.Command("publish", "disk.raw")
//	cmd.Env = append(os.Environ(), fake.Env()...)
//	…
//	disk, err := fake.Disk("us-east-1", "snap-0123456789abcdef0")  // what a machine would boot
//	violations := fake.Violations()                                // must be empty
//
// # What it checks
//
// Every request is checked as strictly as AWS documents it, and more: signatures (SigV4) are computed again; blocks must
// have 512 KiB and their SHA-256; snapshots are completed with the right count and the right linear checksum; a
// client token that comes again gives the same answer, or an error if other parameters come with it; EC2's parameters
// must all be known, their values and their combinations valid. Whatever no correct client does, even when the network
// fails it, is answered by the error that AWS would give and noted as a [Violation].
//
// # What it does
//
// Each region has a store of its own. A snapshot inherits its parent's blocks. A block that nobody has written reads as
// zeros in a snapshot that is not encrypted, and as noise in an encrypted one, as it does on AWS: a client that skips
// zeros there makes a disk that does not boot. Images, copies and import tasks take time ([Knobs.Settle]); waiting can be
// skipped by [Server.Advance].
//
// Where AWS's documentation is silent, the fake is strict, but no stricter than a careful client: CompleteSnapshot may come
// again, with the same count and checksum, because its first answer may be lost; a snapshot that is not completed within
// its timeout turns to the state error and its blocks are refused; a multipart upload that was completed exists no more;
// RegisterImage and StartSnapshot's parent need a completed snapshot.
//
// Data lies in files without a name below [os.TempDir], equal blocks once; memory holds only their digests.
//
// # How it fails
//
// [Knobs] holds limits, latency and the state of the account. [Knobs.Faults] decides for each request if and how it fails:
// throttled, refused, never answered, cut, or cut after it took effect; [Random] makes a schedule that can be replayed.
//
// Sources of the rules: the models in github.com/aws/aws-sdk-go-v2, "Amazon EBS direct APIs" in the EBS user guide, and the
// API references of EC2, S3, IAM, STS and SSM.
package awstest

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The account that the fake knows, and its only credentials.
const (
	Account         = "123456789012"
	AccessKeyID     = "AKIAIOSFODNN7EXAMPLE"
	SecretAccessKey = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
	// Region is the one that [Server.Env] names.
	Region = "us-east-1"
)

// regions are those of the partition aws, all enabled: DescribeRegions lists them and requests may be signed for them.
var regions = slices.Sorted(slices.Values(slices.Concat(always, optIn)))

var (
	// always are the regions that every account has.
	always = []string{
		"ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1", "ap-southeast-1", "ap-southeast-2", "ca-central-1", "eu-central-1",
		"eu-north-1", "eu-west-1", "eu-west-2", "eu-west-3", "sa-east-1", "us-east-1", "us-east-2", "us-west-1", "us-west-2",
	}
	// optIn are those that an account must ask for, as this one has.
	optIn = []string{
		"af-south-1", "ap-east-1", "ap-east-2", "ap-south-2", "ap-southeast-3", "ap-southeast-4", "ap-southeast-5", "ap-southeast-6", "ap-southeast-7",
		"ca-west-1", "eu-central-2", "eu-south-1", "eu-south-2", "il-central-1", "me-central-1", "me-south-1", "me-west-1", "mx-central-1", "sa-west-1",
	}
)

// Knobs set how the account is and how the service behaves. The zero value is a healthy account and an instant service.
type Knobs struct {
	// Latency passes before each answer.
	Latency time.Duration
	// Grace is how long a new snapshot "does not exist" yet for those who write or describe it.
	Grace time.Duration
	// Settle is how long a completed snapshot, a new image, a copy or an import task stays pending.
	Settle time.Duration
	// Flap makes every third Describe deny an object that is younger than this or show its former state, and EBS direct
	// give short or empty pages of lists.
	Flap time.Duration
	// Faults decides for each request if and how it fails. It may be called at the same time for several.
	Faults func(Request) Fault
	// PutRate is how many blocks per second a snapshot takes before it throttles (AWS: 1000); 0 is no limit.
	PutRate float64
	// PendingSnapshots and Images are quotas per region; 0 is AWS's 100 and 50000.
	PendingSnapshots, Images int
	// EncryptByDefault encrypts every new snapshot, asked or not.
	EncryptByDefault bool
	// BlockPublicAccess forbids to share images and snapshots with all.
	BlockPublicAccess bool
	// Denied are operations that the account may not call, such as "ec2:RegisterImage"; "ec2:*" is all of a service.
	Denied []string
	// Roles are the account's IAM roles; nil is vmimport alone.
	Roles []string
	// ImportFailure makes import tasks end with this message instead of a snapshot.
	ImportFailure string
}

// Server is the fake. It is an [http.Handler]: serve it on any listener, or use [Start].
type Server struct {
	knobs  atomic.Pointer[Knobs]
	blocks *blobs
	done   chan struct{} // closed by Close
	closed sync.Once
	http   *httptest.Server // nil if somebody else serves it

	mu         sync.Mutex // guards all below, and all that hangs on it
	ahead      time.Duration
	regions    map[string]*region
	buckets    map[string]*bucket
	requests   []Request
	seen       map[string]int // how often a request came, by Request.key
	violations []Violation
}

// New returns a fake that nobody serves yet. Close it.
func New(knobs Knobs) *Server {
	s := &Server{
		blocks:  newBlobs(),
		done:    make(chan struct{}),
		regions: map[string]*region{},
		buckets: map[string]*bucket{},
		seen:    map[string]int{},
	}
	s.SetKnobs(knobs)
	return s
}

// Start serves a fake on loopback until the test ends.
func Start(tb testing.TB, knobs Knobs) *Server {
	tb.Helper()
	s := New(knobs)
	s.http = httptest.NewServer(s)
	tb.Cleanup(s.Close)
	return s
}

// Close lets stalled requests go, stops serving and frees the stored data.
func (s *Server) Close() {
	s.closed.Do(func() {
		close(s.done)
		if s.http != nil {
			s.http.CloseClientConnections()
			s.http.Close()
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, b := range s.buckets {
			b.close()
		}
		s.blocks.close()
	})
}

// URL is where [Start] serves the fake.
func (s *Server) URL() string { return s.http.URL }

// Env returns the environment variables by which a client reaches the fake that [Start] serves.
func (s *Server) Env() []string { return Env(s.URL()) }

// Env returns the environment variables by which a client reaches a fake at url: endpoint, credentials, region, and no
// other source of them.
func Env(url string) []string {
	return []string{
		"AWS_ENDPOINT_URL=" + url,
		"AWS_ACCESS_KEY_ID=" + AccessKeyID,
		"AWS_SECRET_ACCESS_KEY=" + SecretAccessKey,
		"AWS_SESSION_TOKEN=",
		"AWS_REGION=" + Region,
		"AWS_EC2_METADATA_DISABLED=true",
		"AWS_CONFIG_FILE=/dev/null",
		"AWS_SHARED_CREDENTIALS_FILE=/dev/null",
	}
}

// Knobs returns the present knobs.
func (s *Server) Knobs() Knobs { return *s.knobs.Load() }

// SetKnobs changes the knobs for all requests that come from now on.
func (s *Server) SetKnobs(k Knobs) { s.knobs.Store(&k) }

// Advance moves the fake's clock on, for all that takes time or expires. Signatures are still dated by the real clock.
func (s *Server) Advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ahead += d
}

// now is the fake's time. The caller holds s.mu.
func (s *Server) now() time.Time { return time.Now().Add(s.ahead).UTC() }

// Request is one request as the fake saw it.
type Request struct {
	Service   string // as in the signature: "ebs", "ec2", "s3" …
	Region    string
	Operation string // as in the service's model: "PutSnapshotBlock"
	// Resource is what the operation is about, if its address says so: a path, or an id or name among the parameters.
	Resource string
	// Attempt counts requests with the same service, region, operation and resource, from 1.
	Attempt int
	// Fault is how the fake let it fail, and Status the HTTP status of the answer; 0 is none.
	Fault  Fault
	Status int
	// Error is the code of the error that the answer held.
	Error string
}

func (r Request) key() string {
	return strings.Join([]string{r.Service, r.Region, r.Operation, r.Resource}, " ")
}

// String gives the request on a line.
func (r Request) String() string {
	text := fmt.Sprintf("%s:%s %s %s #%d: %d", r.Service, r.Operation, r.Region, r.Resource, r.Attempt, r.Status)
	if r.Service == "" { // it was not signed
		text = fmt.Sprintf("%s: %d", r.Operation, r.Status)
	}
	if r.Error != "" {
		text += " " + r.Error
	}
	if r.Fault != None {
		text += " (" + r.Fault.String() + ")"
	}
	return text
}

// Requests returns all requests so far, in the order of their ends. Those that are still under way are not among them.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.requests...)
}

// Count says how often an operation, such as "ec2:RegisterImage", was called.
func (s *Server) Count(operation string) int {
	n := 0
	for _, r := range s.Requests() {
		if r.Service+":"+r.Operation == operation {
			n++
		}
	}
	return n
}

// Violation is something that no correct client does.
type Violation struct {
	Request Request
	Message string
}

func (v Violation) String() string { return v.Request.String() + ": " + v.Message }

// Violations returns all violations so far.
func (s *Server) Violations() []Violation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Violation(nil), s.violations...)
}

// region is what one region of the account holds.
type region struct {
	name      string
	ids       uint64
	snapshots map[string]*snapshot
	images    map[string]*image
	tasks     map[string]*importTask
	params    map[string]*parameter
	tokens    map[string]*token
	describes int // counts Describe requests, for flapping
}

// region returns a region by name. The caller holds s.mu.
func (s *Server) region(name string) *region {
	r := s.regions[name]
	if r == nil {
		r = &region{
			name:      name,
			snapshots: map[string]*snapshot{},
			images:    map[string]*image{},
			tasks:     map[string]*importTask{},
			params:    map[string]*parameter{},
			tokens:    map[string]*token{},
		}
		s.regions[name] = r
	}
	return r
}

// id returns a new id: the same for the n-th one of a region in each run, but no plain count that a client could guess.
func (r *region) id(prefix string) string {
	r.ids++
	h := fnv.New64a()
	fmt.Fprintf(h, "%s/%s/%d", r.name, prefix, r.ids)
	return prefix + "-0" + hex.EncodeToString(binary.BigEndian.AppendUint64(nil, h.Sum64()))
}

// token remembers what a client token stands for.
type token struct {
	parameters string // a canonical text of the request
	id         string // what it made
}

// once finds what an earlier request with the same client token made. A token that comes with other parameters is the
// client's mistake.
func (r *region) once(operation, name, parameters string) (id string, mismatch bool) {
	if t := r.tokens[operation+" "+name]; name != "" && t != nil {
		return t.id, t.parameters != parameters
	}
	return "", false
}

// remember binds a client token to what it made.
func (r *region) remember(operation, name, parameters, id string) {
	if name != "" {
		r.tokens[operation+" "+name] = &token{parameters: parameters, id: id}
	}
}

var _ http.Handler = (*Server)(nil)
