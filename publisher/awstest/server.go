package awstest

import (
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/test/bufconn"
)

// The only account of the fake and its credentials.
const (
	Account         = "123456789012"
	AccessKeyID     = "AKIAIOSFODNN7EXAMPLE"
	SecretAccessKey = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
	// Region is the region that [Server.Env] selects.
	Region = "us-east-1"
)

// A Server is a fake AWS account. It is an [http.Handler]: serve it on any
// listener, or use [Start]. All methods are safe for concurrent use.
type Server struct {
	knobs  atomic.Pointer[config]
	blocks *blobs
	done   chan struct{} // closed by Close
	closed sync.Once
	http   *httptest.Server // nil unless Start or StartTLS serves it

	memory   *bufconn.Listener // nil unless StartMemory serves it
	caBundle string            // file with the certificate of StartTLS

	mu         sync.Mutex    // guards the fields below and everything they refer to
	ahead      time.Duration // of the real clock; see Advance
	regions    map[string]*region
	buckets    map[string]*bucket
	requests   []Request
	seen       map[string]int // attempts by Request.key
	violations []Violation
}

// New returns a fake without a listener. The caller must close it.
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

// Start serves a fake on loopback until the test ends. See [Server.URL].
func Start(tb testing.TB, knobs Knobs) *Server {
	tb.Helper()
	s := New(knobs)
	s.http = httptest.NewServer(s)
	tb.Cleanup(s.Close)
	return s
}

// StartTLS is like [Start], but serves HTTPS, and HTTP/2 to clients that ask
// for it, as AWS does behind many proxies. [Server.Env] names the certificate.
func StartTLS(tb testing.TB, knobs Knobs) *Server {
	tb.Helper()
	s := New(knobs)
	tb.Cleanup(s.Close)
	s.http = httptest.NewUnstartedServer(s)
	s.http.EnableHTTP2 = true
	s.http.Config.ErrorLog = log.New(io.Discard, "", 0) // faults break handshakes
	s.http.StartTLS()
	s.caBundle = filepath.Join(tb.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.http.Certificate().Raw})
	if err := os.WriteFile(s.caBundle, block, 0o600); err != nil {
		tb.Fatal(err)
	}
	return s
}

// Close ends stalled requests, stops serving and frees the stored data.
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

// URL returns the address at which [Start] or [StartTLS] serves the fake.
func (s *Server) URL() string { return s.http.URL }

// Client returns an HTTP client that trusts the certificate of [StartTLS].
func (s *Server) Client() *http.Client { return s.http.Client() }

// Env returns the environment variables that point a client at the fake that
// [Start] or [StartTLS] serves. See the function [Env].
func (s *Server) Env() []string {
	env := append(Env(s.URL()), "AWS_SESSION_TOKEN="+s.Knobs().SessionToken)
	if s.caBundle != "" {
		env = append(env, "AWS_CA_BUNDLE="+s.caBundle)
	}
	return env
}

// Env returns the environment variables, as NAME=VALUE, that point a client at
// a fake at url: endpoint, credentials and region. They disable all other
// sources.
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

// Knobs returns the current knobs.
func (s *Server) Knobs() Knobs { return s.knobs.Load().Knobs }

// SetKnobs sets the knobs for new requests. It panics if one of the policies is
// invalid or uses a condition operator that the fake does not implement.
func (s *Server) SetKnobs(k Knobs) {
	c := &config{Knobs: k}
	for _, text := range k.Policies {
		p, err := parsePolicy(text)
		if err != nil {
			panic(err)
		}
		c.policies = append(c.policies, p)
	}
	s.knobs.Store(c)
}

// Advance moves the fake's clock forward. States and timeouts follow that
// clock; signatures are still compared with the real one.
func (s *Server) Advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ahead += d
}

// now returns the fake's time. The caller holds s.mu.
func (s *Server) now() time.Time { return time.Now().Add(s.ahead).UTC() }

var _ http.Handler = (*Server)(nil)

// Orphans returns a sorted list of everything that no image uses: snapshots,
// active import tasks, S3 objects and multipart uploads.
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
