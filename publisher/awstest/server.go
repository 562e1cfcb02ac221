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
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
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

var _ http.Handler = (*Server)(nil)

// Orphans lists what is there although no image uses it: snapshots, import tasks under way, S3 objects and multipart
// uploads, sorted.
func (s *Server) Orphans() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for name, r := range s.regions {
		for id, p := range r.snapshots {
			if len(r.users(id)) == 0 {
				out = append(out, fmt.Sprintf("%s snapshot %s (%s)", name, id, p.state(s.now())))
			}
		}
		for id, t := range r.tasks {
			if t.state == "" {
				out = append(out, fmt.Sprintf("%s import task %s", name, id))
			}
		}
	}
	for name, b := range s.buckets {
		for key := range b.objects {
			out = append(out, fmt.Sprintf("%s object s3://%s/%s", b.region, name, key))
		}
		for _, id := range slices.Sorted(maps.Keys(b.uploads)) {
			out = append(out, fmt.Sprintf("%s upload of s3://%s/%s", b.region, name, b.uploads[id].key))
		}
	}
	slices.Sort(out)
	return out
}
