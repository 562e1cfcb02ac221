package ami

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"iter"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	ebstypes "github.com/aws/aws-sdk-go-v2/service/ebs/types"
	"github.com/aws/smithy-go"
	"golang.org/x/time/rate"
)

// Limits of one request to AWS. EBS has been seen to report a new snapshot as
// unknown for up to 56 seconds, and patience covers that too.
const (
	patience    = 2 * time.Minute
	unreachable = 15 * time.Second // if nothing listens on the endpoint
	firstDelay  = 50 * time.Millisecond
	longest     = 5 * time.Second
)

// settled is how long AWS must report a resource that it has created as
// missing before undo believes it: EC2 is eventually consistent.
const settled = 5 * time.Second

// A caller retries requests. The retries of the SDK are disabled, except for
// those of S3.
type caller struct {
	attempt time.Duration // limit of one attempt
	retries *atomic.Int64
	pace    *rate.Limiter // of the attempts; may be nil
	onRetry func(error)   // called before each retry; may be nil
	window  *window       // that the request is in; may be nil
}

// try calls request until it succeeds, it fails with an error that a retry
// cannot cure, or patience ends. The tests in transient add to the errors that
// are worth a retry.
func try[Out any](ctx context.Context, c caller, request func(context.Context) (Out, error), transient ...func(error) bool) (Out, error) {
	start, limit := time.Now(), c.attempt
	for delay := firstDelay; ; delay = min(2*delay, longest) {
		waited, err := c.wait(ctx)
		if err != nil {
			return *new(Out), err
		}
		start = start.Add(waited)
		attempt, cancel := context.WithTimeout(ctx, limit)
		out, err := request(attempt)
		cancel()
		if err == nil {
			return out, nil
		}
		if ctx.Err() != nil {
			return out, context.Cause(ctx)
		}
		again := isTransient(err)
		for _, is := range transient {
			again = again || is(err)
		}
		wait := patience
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			wait = unreachable
		}
		if !again || time.Since(c.progress(start)) > wait {
			return out, err
		}
		if errors.Is(err, context.DeadlineExceeded) { // the line may be too slow for the limit
			limit = min(2*limit, 4*c.attempt)
		}
		c.retries.Add(1)
		if c.onRetry != nil {
			c.onRetry(err)
		}
		pause := time.Duration(rand.Int64N(int64(delay))) + delay/4
		if c.window != nil {
			err = c.window.yield(ctx, pause)
		} else {
			err = sleep(ctx, pause)
		}
		if err != nil {
			return out, err
		}
	}
}

// progress returns since when nothing has succeeded: on a slow line, a request
// can fail again and again while others succeed.
func (c caller) progress(start time.Time) time.Time {
	if c.window != nil {
		if last := c.window.progress(); last.After(start) {
			return last
		}
	}
	return start
}

// wait waits until the pace permits an attempt. It returns how long that took,
// which must count neither against the limit of the attempt nor against
// patience.
func (c caller) wait(ctx context.Context) (time.Duration, error) {
	if c.pace == nil {
		return 0, nil
	}
	start := time.Now()
	if err := c.pace.Wait(ctx); err != nil {
		return 0, cmp.Or(context.Cause(ctx), err)
	}
	return time.Since(start), nil
}

// call sends input by a method of an SDK client, with retries.
func call[In, Out, Opt any](ctx context.Context, c caller, method func(context.Context, *In, ...func(*Opt)) (*Out, error), input *In, transient ...func(error) bool) (*Out, error) {
	return try(ctx, c, func(ctx context.Context) (*Out, error) { return method(ctx, input) }, transient...)
}

// A paginator is one of the SDK's.
type paginator[Out, Opt any] interface {
	HasMorePages() bool
	NextPage(context.Context, ...func(*Opt)) (*Out, error)
}

// pages yields the pages of a paginator, with retries. It ends after the first
// error.
func pages[Out, Opt any](ctx context.Context, c caller, p paginator[Out, Opt]) iter.Seq2[*Out, error] {
	return func(yield func(*Out, error) bool) {
		for p.HasMorePages() {
			page, err := try(ctx, c, func(ctx context.Context) (*Out, error) { return p.NextPage(ctx) })
			if !yield(page, err) || err != nil {
				return
			}
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

var (
	retryables = retry.IsErrorRetryables(retry.DefaultRetryables)
	throttles  = retry.IsErrorThrottles(retry.DefaultThrottles)
)

// isTransient reports whether the same request may succeed later.
func isTransient(err error) bool {
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		return false
	}
	var untrusted *tls.CertificateVerificationError
	if errors.As(err, &untrusted) {
		return false
	}
	if errors.Is(err, context.DeadlineExceeded) || retryables.IsErrorRetryable(err) == aws.TrueTernary || isThrottle(err) {
		return true
	}
	var cut *smithy.DeserializationError // the response broke off
	if errors.As(err, &cut) {
		return true
	}
	var invalid *ebstypes.ValidationException
	if errors.As(err, &invalid) {
		return invalid.Reason == "CONFLICTING_BLOCK_UPDATE" || invalid.Reason == "WRITE_REQUEST_TIMEOUT"
	}
	switch errorCode(err) {
	case "InternalServerException", "InternalError", "InternalFailure", "InternalServerError",
		"Unavailable", "ServiceUnavailable", "ConcurrentLimitExceededException":
		return true
	}
	return false
}

func isThrottle(err error) bool { return throttles.IsErrorThrottle(err) == aws.TrueTernary }

// errPending is the end of a wait for something that AWS is still making.
var errPending = errors.New("not finished")

// poll calls check at growing intervals until it reports done three times in a
// row, because consecutive descriptions of a resource can contradict each
// other. It fails with errPending after limit.
func poll(ctx context.Context, what string, limit time.Duration, check func(context.Context) (done bool, err error)) error {
	const enough = 3
	start, inRow := time.Now(), 0
	for delay := 100 * time.Millisecond; ; {
		done, err := check(ctx)
		switch {
		case err != nil:
			return err
		case done:
			if inRow++; inRow == enough {
				return nil
			}
			delay = 100 * time.Millisecond
		default:
			inRow = 0
			if time.Since(start) > limit {
				return fail(ClassOther, "%s: %w after %v", what, errPending, limit)
			}
			delay = min(delay*3/2, 10*time.Second)
		}
		if err := sleep(ctx, delay); err != nil {
			return err
		}
	}
}
