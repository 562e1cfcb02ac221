package buildkitd

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"sync"
)

// Meter stands before a registry and counts the blobs that go through.
type Meter struct {
	Address string // host:port

	server *http.Server
	mu     sync.Mutex
	pulled map[Blob]int64
	pushed int64
}

// Blob is one of a repository.
type Blob struct {
	Repository string
	Digest     string // sha256:…
}

// StartMeter serves on a free port what the registry at host:port has.
func StartMeter(registry string) (*Meter, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("meter of a registry: %w", err)
	}
	m := &Meter{Address: fmt.Sprintf("localhost:%d", listener.Addr().(*net.TCPAddr).Port), pulled: map[Blob]int64{}}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: registry})
			r.Out.Host = r.In.Host // the registry's answers name the place for uploads
			if r.In.ContentLength != 0 {
				r.Out.Body = &counted{r.In.Body, func(n int64) {
					m.mu.Lock()
					m.pushed += n
					m.mu.Unlock()
				}}
			}
		},
		ModifyResponse: func(r *http.Response) error {
			if blob, ok := blobOf(r.Request.URL.Path); ok && r.Request.Method == http.MethodGet {
				r.Body = &counted{r.Body, func(n int64) {
					m.mu.Lock()
					m.pulled[blob] += n
					m.mu.Unlock()
				}}
			}
			return nil
		},
	}
	m.server = &http.Server{Handler: proxy}
	go m.server.Serve(listener)
	return m, nil
}

var blobPath = regexp.MustCompile(`^/v2/(.+)/blobs/(sha256:[0-9a-f]{64})$`)

func blobOf(path string) (Blob, bool) {
	found := blobPath.FindStringSubmatch(path)
	if found == nil {
		return Blob{}, false
	}
	return Blob{found[1], found[2]}, true
}

// Reset gives the bytes that were pulled and pushed since the last time. Manifests are not counted among the pulled.
func (m *Meter) Reset() (pulled map[Blob]int64, pushed int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	pulled, pushed = maps.Clone(m.pulled), m.pushed
	clear(m.pulled)
	m.pushed = 0
	return pulled, pushed
}

// Stop ends the service.
func (m *Meter) Stop() error { return m.server.Close() }

// counted tells how much was read.
type counted struct {
	io.ReadCloser
	add func(int64)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.add(int64(n))
	return n, err
}
