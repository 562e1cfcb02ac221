package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/slipway-build/slipway/internal/printable"
)

// Limits of requests to a registry.
const (
	maxManifest  = 4 << 20          // bytes, as the OCI distribution specification recommends
	maxRedirects = 3                // registries redirect once, to their storage
	idleLimit    = 30 * time.Second // for which nothing arrives
	patience     = time.Minute      // for which a request is repeated
	firstDelay   = 100 * time.Millisecond
	longest      = 5 * time.Second

	// maxMismatches is the number of attempts for content that does not match
	// its digest. What comes through a broken proxy may match the next time.
	maxMismatches = 3
)

// A registry reads one repository of a registry. It retries what fails for a
// temporary reason.
type registry struct {
	ref      Reference
	base     string // URL of the repository
	client   *http.Client
	patience time.Duration
}

// connect authenticates with the credentials of docker login.
func connect(ctx context.Context, ref Reference) (*registry, error) {
	repo := ref.repository
	r := &registry{ref: ref, base: fmt.Sprintf("%s://%s/v2/%s/", repo.Scheme(), repo.RegistryStr(), repo.RepositoryStr()), patience: patience}
	auth, err := authn.Resolve(ctx, authn.DefaultKeychain, repo)
	if err != nil {
		return nil, fmt.Errorf("credentials for %s: %w", repo.RegistryStr(), err)
	}
	rt, err := retry(ctx, r.patience, func() (http.RoundTripper, error) {
		return transport.NewWithContext(ctx, repo.Registry, auth, newTransport(), []string{repo.Scope(transport.PullScope)})
	})
	if err != nil {
		return nil, r.explain(err)
	}
	r.client = &http.Client{Transport: rt, CheckRedirect: r.checkRedirect}
	return r, nil
}

// newTransport returns the transport of go-containerregistry, which uses the
// proxies of the environment, with one connection for each request at the same
// time.
func newTransport() http.RoundTripper {
	t := remote.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = idleLimit
	t.MaxResponseHeaderBytes = 64 << 10
	return t
}

// checkRedirect limits where a registry can send this program: to its storage
// on another public host, but not from HTTPS to HTTP, and not to addresses that
// this machine can reach and the registry cannot.
func (r *registry) checkRedirect(req *http.Request, via []*http.Request) error {
	from := via[0].URL
	switch {
	case len(via) > maxRedirects:
		return permanent{fmt.Errorf("the registry redirects more than %d times", maxRedirects)}
	case req.URL.Scheme != "https" && (req.URL.Scheme != "http" || from.Scheme != "http"):
		return permanent{fmt.Errorf("the registry redirects from %s to %q", from.Scheme, req.URL.Scheme)}
	case req.URL.Hostname() != from.Hostname() && isInternal(req.URL.Hostname()) && !isInternal(from.Hostname()):
		return permanent{fmt.Errorf("the registry redirects to %q, which is not a public address", req.URL.Hostname())}
	}
	return nil
}

// isInternal reports whether a host is an address, or the name of one, that is
// not on the public Internet. Names that resolve to such an address are not
// recognized.
func isInternal(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	ip = ip.Unmap()
	return ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast() || ip.IsUnspecified() || ip.IsMulticast()
}

// permanent is an error that a retry cannot cure.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// A statusError is an answer of the registry other than success.
type statusError struct {
	status  int
	message string // of the registry, printable
}

func (e *statusError) Error() string {
	return strings.TrimSuffix(fmt.Sprintf("the registry answers %d %s: %s", e.status, http.StatusText(e.status), e.message), ": ")
}

// retry calls do until it succeeds, fails for good, or fails for longer than
// limit.
func retry[T any](ctx context.Context, limit time.Duration, do func() (T, error)) (T, error) {
	start, mismatches := time.Now(), 0
	for delay := firstDelay; ; delay = min(2*delay, longest) {
		out, err := do()
		if err == nil {
			return out, nil
		}
		if ctx.Err() != nil {
			return out, context.Cause(ctx)
		}
		if errors.Is(err, errMismatch) {
			mismatches++
		}
		if !isTransient(err) || mismatches == maxMismatches || time.Since(start) > limit {
			return out, err
		}
		select {
		case <-time.After(delay/2 + time.Duration(rand.Int64N(int64(delay)))):
		case <-ctx.Done():
			return out, context.Cause(ctx)
		}
	}
}

// isTransient reports whether the same request may succeed later.
func isTransient(err error) bool {
	var final permanent
	var dns *net.DNSError
	switch {
	case errors.As(err, &final):
		return false
	case errors.As(err, &dns) && dns.IsNotFound, errors.Is(err, syscall.ECONNREFUSED):
		return false
	}
	var status *statusError
	if errors.As(err, &status) {
		return status.status >= 500 && status.status != http.StatusNotImplemented || status.status == http.StatusTooManyRequests || status.status == http.StatusRequestTimeout
	}
	var answer *transport.Error // while it authenticates
	if errors.As(err, &answer) {
		return answer.Temporary()
	}
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, errMismatch) || errors.Is(err, errIdle)
}

// explain returns an error of the registry as one printable line.
func (r *registry) explain(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	var status *statusError
	var answer *transport.Error
	code := 0
	if errors.As(err, &status) {
		code = status.status
	} else if errors.As(err, &answer) {
		code = answer.StatusCode
	}
	advice := ""
	switch code {
	case http.StatusUnauthorized, http.StatusForbidden:
		advice = "; log in with: docker login " + r.ref.repository.RegistryStr()
	case http.StatusNotFound:
		advice = "; check the name and the tag, and whether you are logged in"
	}
	return &registryError{printable.Line(fmt.Sprintf("%s: %v%s", r.ref, err, advice)), err}
}

// A registryError is an error with a message that is safe to print.
type registryError struct {
	message string
	cause   error
}

func (e *registryError) Error() string { return e.message }
func (e *registryError) Unwrap() error { return e.cause }

var errIdle = fmt.Errorf("nothing arrived for %v", idleLimit)

// fetch sends a request for a path in the repository, and lets read read the
// response, if that has the status want. It fails if nothing arrives for a
// while.
func (r *registry) fetch(ctx context.Context, path string, header http.Header, want int, read func(io.Reader, http.Header) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(idleLimit, func() { cancel(errIdle) })
	defer idle.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.base+path, nil)
	if err != nil {
		return err
	}
	req.Header = header
	resp, err := r.client.Do(req)
	if err == nil {
		defer resp.Body.Close()
		if resp.StatusCode == want {
			err = read(&watchedReader{resp.Body, idle}, resp.Header)
		} else {
			text, _ := io.ReadAll(io.LimitReader(resp.Body, 512)) // the status suffices
			err = &statusError{resp.StatusCode, printable.Line(strings.TrimSpace(string(text)))}
		}
	}
	if err != nil && errors.Is(context.Cause(ctx), errIdle) {
		return errIdle
	}
	return err
}

// A watchedReader postpones a timer while something arrives.
type watchedReader struct {
	io.Reader
	idle *time.Timer
}

func (r *watchedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if n > 0 {
		r.idle.Reset(idleLimit)
	}
	return n, err
}

// readAll reads at most limit bytes.
func readAll(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = permanent{fmt.Errorf("the registry returns more than %d bytes", limit)}
	}
	return data, err
}

// manifest returns a manifest or an image index, and its digest. A digest that
// is asked for is verified.
func (r *registry) manifest(ctx context.Context, identifier string) (data []byte, digest string, err error) {
	if data, err = r.get(ctx, "manifests/"+identifier); err != nil {
		return nil, "", r.explain(err)
	}
	digest = sha256Digest(data)
	if strings.HasPrefix(identifier, "sha256:") && digest != identifier {
		return nil, "", r.explain(fmt.Errorf("the registry returns the manifest %s instead of %s", digest, identifier))
	}
	return data, digest, nil
}

// get returns a document of the repository.
func (r *registry) get(ctx context.Context, path string) ([]byte, error) {
	header := http.Header{"Accept": {string(types.OCIImageIndex) + ", " + string(types.OCIManifestSchema1)}}
	return retry(ctx, r.patience, func() (data []byte, err error) {
		err = r.fetch(ctx, path, header, http.StatusOK, func(body io.Reader, _ http.Header) error {
			data, err = readAll(body, maxManifest)
			return err
		})
		return data, err
	})
}

// referrers returns the manifests that refer to the digest of the reference.
// Registries without a list of referrers have it under a tag: OCI distribution
// specification 1.1, "Unavailable Referrers API".
func (r *registry) referrers(ctx context.Context) ([]v1.Descriptor, error) {
	var data []byte
	var err error
	for _, path := range []string{"referrers/" + r.ref.digest, "manifests/" + strings.Replace(r.ref.digest, ":", "-", 1)} {
		if data, err = r.get(ctx, path); !isNotFound(err) {
			break
		}
	}
	if isNotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, r.explain(err)
	}
	var list document
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, r.explain(fmt.Errorf("referrers: %w", err))
	}
	return list.Manifests, nil
}

// isNotFound reports whether a registry has no such document, or no such kind of
// documents.
func isNotFound(err error) bool {
	var status *statusError
	return errors.As(err, &status) && slices.Contains([]int{http.StatusNotFound, http.StatusBadRequest, http.StatusMethodNotAllowed}, status.status)
}

// blob returns a blob of a number of bytes, which it verifies.
func (r *registry) blob(ctx context.Context, digest string, size int64) ([]byte, error) {
	data, err := retry(ctx, r.patience, func() (data []byte, err error) {
		err = r.fetch(ctx, "blobs/"+digest, http.Header{}, http.StatusOK, func(body io.Reader, _ http.Header) error {
			data, err = readAll(body, size)
			return err
		})
		if err == nil && sha256Digest(data) != digest {
			err = fmt.Errorf("blob %s: %w", digest, errMismatch)
		}
		return data, err
	})
	return data, r.explain(err)
}

// readRange fills a buffer with a part of a blob, which the caller verifies. It
// does not retry.
func (r *registry) readRange(ctx context.Context, digest string, offset int64, buffer []byte) error {
	last := offset + int64(len(buffer)) - 1
	header := http.Header{
		"Range": {fmt.Sprintf("bytes=%d-%d", offset, last)},
		// Compression in transit would change the meaning of the range.
		"Accept-Encoding": {"identity"},
	}
	err := r.fetch(ctx, "blobs/"+digest, header, http.StatusPartialContent, func(body io.Reader, answer http.Header) error {
		if got, want := answer.Get("Content-Range"), fmt.Sprintf("bytes %d-%d/", offset, last); !strings.HasPrefix(got, want) {
			return permanent{fmt.Errorf("the registry returns the range %.40q instead of %q", got, want)}
		}
		n, err := io.ReadFull(body, buffer)
		if err != nil {
			return fmt.Errorf("%d of %d bytes: %w", n, len(buffer), err)
		}
		return nil
	})
	var status *statusError
	if errors.As(err, &status) && status.status == http.StatusOK {
		return permanent{errors.New("the registry does not support range requests: use slipway pull, then the file")}
	}
	return err
}

// sha256Digest returns the digest of data as OCI writes it.
func sha256Digest(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }
