package ami

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"golang.org/x/time/rate"
)

// services are the AWS resources of one region that a publish works with.
type services struct {
	images     images
	snapshots  snapshots
	blocks     blocks
	imports    imports
	instances  instances
	objects    objects
	parameters parameters
	scaling    scaling
	iam        *iam.Client
}

// limits are those of the requests to one region.
type limits struct {
	attempt time.Duration // limit of one attempt of a request
	workers int           // concurrent requests that write blocks
	rate    float64       // blocks per second
	retries *atomic.Int64 // counts retries
}

// connect makes the clients of a region.
func connect(cfg aws.Config, region string, client aws.HTTPClient, l limits) services {
	cfg = cfg.Copy()
	cfg.Region, cfg.HTTPClient = region, client
	single := cfg.Copy()
	single.Retryer = func() aws.Retryer { return aws.NopRetryer{} }

	requests := caller{attempt: l.attempt, retries: l.retries}
	window, writes := newWindow(l.workers, l.attempt), requests
	// A burst of one second is the same as what AWS permits per second. If AWS
	// does not, it throttles, and the window shrinks.
	writes.pace = rate.NewLimiter(rate.Limit(l.rate), max(1, int(l.rate)))
	writes.onRetry = func(err error) {
		if isThrottle(err) || errors.Is(err, context.DeadlineExceeded) {
			window.shrink()
		}
	}
	transfers := cfg.Copy()
	transfers.HTTPClient = watchdog{client, 6 * l.attempt} // patience, by default
	compute := ec2.NewFromConfig(single)
	return services{
		images:     images{compute, requests},
		snapshots:  snapshots{compute, requests},
		imports:    imports{compute, requests},
		instances:  instances{compute, requests},
		parameters: parameters{ssm.NewFromConfig(single), requests},
		scaling:    scaling{autoscaling.NewFromConfig(single), requests},
		iam:        iam.NewFromConfig(single),
		blocks:     blocks{ebs.NewFromConfig(single), writes, window},
		// The transfer manager relies on its client for retries.
		objects: objects{s3.NewFromConfig(transfers, pathStyle, func(o *s3.Options) {
			o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) {
				// 24 attempts take about as long as patience.
				o.MaxAttempts, o.MaxBackoff, o.RateLimiter = 24, longest, ratelimit.None
			})
		}), s3.NewFromConfig(single, pathStyle), requests},
	}
}

// pathStyle is for endpoints without a host name for each bucket.
func pathStyle(o *s3.Options) { o.UsePathStyle = o.BaseEndpoint != nil }

// newHTTPClient returns the client of the configuration, which has the user's
// CA bundle, changed to keep up to workers connections to each host and to
// reject HTML. A client of a type that is not the SDK's is used as it is.
func newHTTPClient(cfg aws.Config, workers int) aws.HTTPClient {
	if cfg.HTTPClient == nil {
		cfg.HTTPClient = awshttp.NewBuildableClient()
	}
	client, ok := cfg.HTTPClient.(*awshttp.BuildableClient)
	if !ok {
		return noHTML{cfg.HTTPClient}
	}
	return noHTML{client.WithTransportOptions(func(t *http.Transport) {
		// One connection of HTTP/2 has a lower throughput than many of
		// HTTP/1.1. The SDK has prepared the transport for HTTP/2, so ALPN
		// would still offer it to the server.
		t.ForceAttemptHTTP2 = false
		t.Protocols = new(http.Protocols)
		t.Protocols.SetHTTP1(true)
		t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
		if t.TLSClientConfig == nil {
			t.TLSClientConfig = new(tls.Config)
		}
		t.TLSClientConfig.NextProtos = []string{"http/1.1"}
		t.MaxIdleConns = 0
		t.MaxIdleConnsPerHost = workers
		t.WriteBufferSize = 64 << 10
	})}
}

// noHTML is a client that fails if something else than AWS answers, such as a
// proxy or the login page of a network. AWS returns XML or JSON.
type noHTML struct{ aws.HTTPClient }

// Do implements [aws.HTTPClient].
func (c noHTML) Do(request *http.Request) (*http.Response, error) {
	response, err := c.HTTPClient.Do(request)
	if err != nil {
		return nil, err
	}
	if kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type")); kind != "text/html" {
		return response, nil
	}
	response.Body.Close()
	return nil, htmlError{request.URL.Host, response.StatusCode}
}

// An htmlError is the answer of a proxy.
type htmlError struct {
	host   string
	status int
}

func (e htmlError) Error() string {
	return fmt.Sprintf("%s answered with a web page and status %d: something between this machine and AWS intercepts the requests; check HTTPS_PROXY and the network", e.host, e.status)
}

// RetryableError reports whether the proxy says that the failure is temporary.
func (e htmlError) RetryableError() bool { return e.status >= 500 }

// resolveRegions returns the regions to work in: names without repetitions, or
// otherwise the region of the configuration.
func resolveRegions(cfg aws.Config, names []string) ([]string, error) {
	switch {
	case len(names) > 0:
		return unique(names), nil
	case cfg.Region != "":
		return []string{cfg.Region}, nil
	}
	return nil, fail(ClassRegionUnavailable, "no region: use --region, or set AWS_REGION")
}
