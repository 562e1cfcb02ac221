package ami

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// A watchdog is a client that cancels requests without progress. The requests
// of the transfer manager have bodies of any size, so that they cannot have a
// limit like all others. A lost connection would block them forever.
type watchdog struct {
	aws.HTTPClient
	limit time.Duration // without progress
}

// Do implements [aws.HTTPClient].
func (w watchdog) Do(request *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(request.Context())
	progress := time.AfterFunc(w.limit, func() { cancel(stallError{request.URL.Host, w.limit}) })
	request = request.Clone(ctx)
	if request.Body != nil && request.Body != http.NoBody {
		request.Body, request.GetBody = &watched{request.Body, ctx, progress, w.limit}, nil
	}
	response, err := w.HTTPClient.Do(request)
	if err != nil {
		progress.Stop()
		err = stalled(ctx, err)
		cancel(nil)
		return nil, err
	}
	response.Body = closer{&watched{response.Body, ctx, progress, w.limit}, func() { progress.Stop(); cancel(nil) }}
	return response, nil
}

// stalled returns the error of the watchdog in place of the cancellation that
// it caused.
func stalled(ctx context.Context, err error) error {
	var stall stallError
	if errors.As(context.Cause(ctx), &stall) {
		return stall
	}
	return err
}

// watched is a body whose reads are progress.
type watched struct {
	io.ReadCloser
	ctx      context.Context
	progress *time.Timer
	limit    time.Duration
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if n > 0 {
		w.progress.Reset(w.limit)
	}
	if err != nil && err != io.EOF {
		err = stalled(w.ctx, err)
	}
	return n, err
}

// closer runs a function when the body is closed.
type closer struct {
	io.ReadCloser
	closed func()
}

func (c closer) Close() error {
	defer c.closed()
	return c.ReadCloser.Close()
}

// A stallError is the end of a request without progress.
type stallError struct {
	host  string
	limit time.Duration
}

func (e stallError) Error() string {
	return fmt.Sprintf("no progress with %s for %v", e.host, e.limit)
}

// RetryableError tells the retryer of the SDK to send the request again.
func (stallError) RetryableError() bool { return true }
