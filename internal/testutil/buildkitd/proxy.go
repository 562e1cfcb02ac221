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

// A Proxy forwards requests to a registry and counts the bytes of blobs.
type Proxy struct {
	Address string // host:port

	server *http.Server
	mu     sync.Mutex
	pulled map[Blob]int64
	pushed int64
}

// A Blob is a blob of a repository.
type Blob struct {
	Repository string
	Digest     string // sha256:…
}

// StartProxy starts a proxy of the registry at host:port on a free port.
func StartProxy(registry string) (*Proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("proxy of a registry: %w", err)
	}
	p := &Proxy{Address: fmt.Sprintf("localhost:%d", listener.Addr().(*net.TCPAddr).Port), pulled: map[Blob]int64{}}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: registry})
			r.Out.Host = r.In.Host // for the upload URLs that the registry returns
			if r.In.ContentLength != 0 {
				r.Out.Body = &counted{r.In.Body, func(n int64) {
					p.mu.Lock()
					p.pushed += n
					p.mu.Unlock()
				}}
			}
		},
		ModifyResponse: func(r *http.Response) error {
			if blob, ok := blobOf(r.Request.URL.Path); ok && r.Request.Method == http.MethodGet {
				r.Body = &counted{r.Body, func(n int64) {
					p.mu.Lock()
					p.pulled[blob] += n
					p.mu.Unlock()
				}}
			}
			return nil
		},
	}
	p.server = &http.Server{Handler: proxy}
	go p.server.Serve(listener)
	return p, nil
}

var blobPath = regexp.MustCompile(`^/v2/(.+)/blobs/(sha256:[0-9a-f]{64})$`)

func blobOf(path string) (Blob, bool) {
	found := blobPath.FindStringSubmatch(path)
	if found == nil {
		return Blob{}, false
	}
	return Blob{found[1], found[2]}, true
}

// Reset returns the bytes pulled per blob and the bytes pushed since the start
// or the last Reset. Pulled manifests do not count.
func (p *Proxy) Reset() (pulled map[Blob]int64, pushed int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pulled, pushed = maps.Clone(p.pulled), p.pushed
	clear(p.pulled)
	p.pushed = 0
	return pulled, pushed
}

// Stop stops the proxy.
func (p *Proxy) Stop() error { return p.server.Close() }

// counted calls add with the number of bytes of each Read.
type counted struct {
	io.ReadCloser
	add func(int64)
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.ReadCloser.Read(b)
	c.add(int64(n))
	return n, err
}
