package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	logapi "go.opentelemetry.io/otel/log"
	sdk "go.opentelemetry.io/otel/sdk/log"
	"go.opentelemetry.io/otel/sdk/resource"

	"github.com/slipway-build/slipway/guest/memlog"
)

const otlpTimeout = 30 * time.Second

// An otlp exports records by OTLP over HTTP
// (https://opentelemetry.io/docs/specs/otlp/#otlphttp). The library does not
// retry, because the shipper does.
type otlp struct {
	exporter  *otlploghttp.Exporter
	transport *lastStatus
	attribute []attribute.KeyValue // of all records
	records   records
	loggers   map[string]logapi.Logger // by source
}

// records is a processor that collects what the loggers emit.
type records struct{ all []sdk.Record }

func (r *records) OnEmit(_ context.Context, record *sdk.Record) error {
	r.all = append(r.all, record.Clone())
	return nil
}

func (r *records) Enabled(context.Context, sdk.EnabledParameters) bool { return true }
func (r *records) Shutdown(context.Context) error                      { return nil }
func (r *records) ForceFlush(context.Context) error                    { return nil }

// lastStatus remembers the last response.
type lastStatus struct {
	next   http.RoundTripper
	status int // 0: none
	wait   time.Duration
}

func (l *lastStatus) RoundTrip(r *http.Request) (*http.Response, error) {
	l.status, l.wait = 0, 0
	response, err := l.next.RoundTrip(r)
	if err == nil {
		l.status = response.StatusCode
		if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil && seconds > 0 {
			l.wait = time.Duration(min(seconds, 3600)) * time.Second
		}
	}
	return response, err
}

func newOTLP(ctx context.Context, u *url.URL, config *tls.Config) (*otlp, error) {
	o := &otlp{loggers: map[string]logapi.Logger{}}
	o.transport = &lastStatus{next: &http.Transport{
		Proxy:           http.ProxyFromEnvironment,
		DialContext:     (&net.Dialer{Timeout: otlpTimeout, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig: config, TLSHandshakeTimeout: otlpTimeout, IdleConnTimeout: 90 * time.Second, MaxIdleConns: 1,
		ForceAttemptHTTP2: true,
	}}
	var err error
	o.exporter, err = otlploghttp.New(ctx,
		otlploghttp.WithEndpointURL(u.String()),
		otlploghttp.WithCompression(otlploghttp.GzipCompression),
		otlploghttp.WithRetry(otlploghttp.RetryConfig{}),
		otlploghttp.WithHTTPClient(&http.Client{Transport: o.transport, Timeout: otlpTimeout}),
	)
	if err != nil {
		return nil, err
	}
	o.attribute = []attribute.KeyValue{attribute.String("os.type", "linux")}
	if host, err := os.Hostname(); err == nil {
		o.attribute = append(o.attribute, attribute.String("host.name", host))
	}
	// The package metadata writes it.
	if id, err := os.ReadFile("/run/config/instance_id"); err == nil && len(id) < 256 {
		o.attribute = append(o.attribute, attribute.String("host.id", strings.TrimSpace(string(id))))
	}
	return o, nil
}

// maxLoggers is how many sources have a resource of their own.
const maxLoggers = 256

// logger returns the logger of a source, which is the service of its resource.
func (o *otlp) logger(ctx context.Context, source string) (logapi.Logger, error) {
	if logger := o.loggers[source]; logger != nil {
		return logger, nil
	}
	if len(o.loggers) >= maxLoggers {
		source = "other"
		if logger := o.loggers[source]; logger != nil {
			return logger, nil
		}
	}
	// What the environment says takes precedence.
	attributes := append([]attribute.KeyValue{attribute.String("service.name", source)}, o.attribute...)
	all, err := resource.New(ctx, resource.WithAttributes(attributes...), resource.WithFromEnv())
	if err != nil {
		return nil, err
	}
	provider := sdk.NewLoggerProvider(sdk.WithProcessor(&o.records), sdk.WithResource(all))
	o.loggers[source] = provider.Logger("memlogd")
	return o.loggers[source], nil
}

func (o *otlp) send(ctx context.Context, batch []memlog.Entry) error {
	o.records.all = o.records.all[:0]
	for _, e := range batch {
		logger, err := o.logger(ctx, e.Source)
		if err != nil {
			return err
		}
		var r logapi.Record
		r.SetTimestamp(e.Time)
		r.SetObservedTimestamp(e.Time)
		r.SetBody(attribute.StringValue(strings.ToValidUTF8(e.Msg, "\uFFFD")))
		logger.Emit(ctx, r)
	}
	o.transport.status = 0
	err := o.exporter.Export(ctx, o.records.all)
	switch status := o.transport.status; {
	case err == nil:
		return nil
	case status == 0: // no response
		return err
	case status == http.StatusTooManyRequests || status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout:
		if o.transport.wait > 0 {
			err = fmt.Errorf("%w: %w", retryAfter(o.transport.wait), err)
		}
		return err
	default: // also a partial success
		return fmt.Errorf("%w: %w", errRejected, err)
	}
}
