package faults

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slipway-build/slipway/internal/testutil/buildkitd"
	"github.com/slipway-build/slipway/internal/testutil/stack"
)

// brokenRegistry serves the stack's registry with a fault and returns its
// address.
func brokenRegistry(t *testing.T, fault func(next http.Handler) http.Handler) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: stack.Registry})
	server := &http.Server{Handler: fault(proxy)}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return "localhost" + strings.TrimPrefix(listener.Addr().String(), "127.0.0.1")
}

func isBlob(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/")
}

// status answers every third request for a blob with the given status, at most
// 6 times.
func status(code int, header ...string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		var requests, faults atomic.Int64
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if isBlob(r) && requests.Add(1)%3 == 1 && faults.Add(1) <= 6 {
				for i := 0; i < len(header); i += 2 {
					w.Header().Set(header[i], header[i+1])
				}
				w.WriteHeader(code)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// A recorder records a response, so that a fault can change its body.
type recorder struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(code int)        { r.code = code }
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }

// change replaces the body of each blob with what f writes.
func change(f func(w io.Writer, body []byte, request int64)) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		var requests atomic.Int64
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !isBlob(r) {
				next.ServeHTTP(w, r)
				return
			}
			kept := &recorder{header: http.Header{}, code: http.StatusOK}
			next.ServeHTTP(kept, r)
			for key, values := range kept.header {
				w.Header()[key] = values
			}
			w.WriteHeader(kept.code)
			f(w, kept.body.Bytes(), requests.Add(1))
		})
	}
}

// TestBrokenRegistry builds from registries that fail in different ways.
func TestBrokenRegistry(t *testing.T) {
	want := want(t)
	for _, c := range []struct {
		name  string
		fault func(http.Handler) http.Handler
		fails string // the message of a build that must fail; "": the build succeeds
	}{
		{name: "slow", fault: change(func(w io.Writer, body []byte, _ int64) {
			for len(body) > 0 {
				n := min(len(body), 64<<10)
				w.Write(body[:n])
				body = body[n:]
				time.Sleep(2 * time.Millisecond)
			}
		})},
		{name: "429", fault: status(http.StatusTooManyRequests, "Retry-After", "1")},
		{name: "503", fault: status(http.StatusServiceUnavailable)},
		{name: "truncates once", fault: change(func(w io.Writer, body []byte, request int64) {
			if request == 2 {
				body = body[:len(body)/2]
			}
			w.Write(body)
		})},
		{name: "always 500", fault: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if isBlob(r) {
					w.WriteHeader(http.StatusInternalServerError)
					return
				}
				next.ServeHTTP(w, r)
			})
		}, fails: "500 Internal Server Error"},
		{name: "wrong bytes", fault: change(func(w io.Writer, body []byte, _ int64) {
			if len(body) > 100 {
				body = bytes.Clone(body)
				body[len(body)/2] ^= 1
			}
			w.Write(body)
		}), fails: "digest"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := start(t, buildkitd.Config{Mirror: brokenRegistry(t, c.fault)})
			dir := newDir(t)
			got, err := build(command(t, dir, d.Address))
			if c.fails == "" {
				if err != nil || got != want {
					t.Errorf("digest %s, want %s: %v", got, want, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("the build should fail with %q: %v", c.fails, err)
			}
			if left := files(t, dir); len(left) > 0 {
				t.Errorf("the failed build left %q", left)
			}
		})
	}
}
