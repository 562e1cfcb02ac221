package ami

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	ebstypes "github.com/aws/aws-sdk-go-v2/service/ebs/types"
	"github.com/aws/smithy-go"
)

// Limits of one request to AWS. Fresh snapshots have been seen to be unknown
// for up to 56 seconds, so patience is at the same time the grace for those.
const (
	patience    = 2 * time.Minute
	unreachable = 15 * time.Second // for an endpoint that nobody answers on
	firstDelay  = 50 * time.Millisecond
	longest     = 5 * time.Second
)

// caller is the one layer of retries; those of the SDK are off.
type caller struct {
	attempt time.Duration // for one attempt
	retries *atomic.Int64
	// failed, if set, hears of each attempt that is made again.
	failed func(error)
}

// try makes a request until it succeeds, fails for good, or patience ends. More
// errors than the usual can be declared passing ones.
func try[Out any](ctx context.Context, c caller, request func(context.Context) (Out, error), passing ...func(error) bool) (Out, error) {
	start := time.Now()
	for delay := firstDelay; ; delay = min(2*delay, longest) {
		attempt, cancel := context.WithTimeout(ctx, c.attempt)
		out, err := request(attempt)
		cancel()
		if err == nil {
			return out, nil
		}
		if ctx.Err() != nil {
			return out, context.Cause(ctx)
		}
		again := isPassing(err)
		for _, is := range passing {
			again = again || is(err)
		}
		limit := patience
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			limit = unreachable
		}
		if !again || time.Since(start) > limit {
			return out, err
		}
		c.retries.Add(1)
		if c.failed != nil {
			c.failed(err)
		}
		if err := sleep(ctx, time.Duration(rand.Int64N(int64(delay)))+delay/4); err != nil {
			return out, err
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
	passingErrors = retry.IsErrorRetryables(retry.DefaultRetryables)
	throttles     = retry.IsErrorThrottles(retry.DefaultThrottles)
)

// isPassing tells errors that may not come again.
func isPassing(err error) bool {
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		return false
	}
	if errors.Is(err, context.DeadlineExceeded) || passingErrors.IsErrorRetryable(err) == aws.TrueTernary || isThrottle(err) {
		return true
	}
	var cut *smithy.DeserializationError // an answer that broke off
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

// hasCode makes a test for errors with one of the codes.
func hasCode(codes ...string) func(error) bool {
	return func(err error) bool {
		got := errorCode(err)
		for _, code := range codes {
			if got == code {
				return true
			}
		}
		return false
	}
}

// poll calls check, more and more slowly, until it says done three times in a
// row: descriptions are known to flap. It fails when limit ends.
func poll(ctx context.Context, what string, limit time.Duration, check func() (done bool, err error)) error {
	const enough = 3
	start, inRow := time.Now(), 0
	for delay := 100 * time.Millisecond; ; {
		done, err := check()
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
				return fail(Other, "%s: not finished after %v; run the same command again to go on waiting", what, limit)
			}
			delay = min(delay*3/2, 10*time.Second)
		}
		if err := sleep(ctx, delay); err != nil {
			return err
		}
	}
}
