package ami

import (
	"context"
	"sync"
	"time"
)

// A window limits the number of concurrent requests as TCP limits
// unacknowledged data: it grows by one with each success and halves when AWS
// throttles or a request times out. It shrinks by one with a success that took
// long, so that a slow line does not carry more blocks than it can deliver
// before they time out.
type window struct {
	mu     sync.Mutex
	free   sync.Cond
	used   int
	retry  int // requests that wait to be sent again, before all new ones
	limit  int
	max    int
	slow   time.Duration // of a request, after which the window does not grow
	halved time.Time
	last   time.Time // when a request last succeeded
}

// newWindow returns a window for up to most requests, for each of which an
// attempt has a limit. The first blocks arrive within 20 seconds at 1 Mbit/s.
func newWindow(most int, limit time.Duration) *window {
	w := &window{limit: min(4, most), max: most, slow: limit / 4}
	w.free.L = &w.mu
	return w
}

func (w *window) acquire(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.free.Broadcast()
	})
	defer stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.used+w.retry >= w.limit && ctx.Err() == nil {
		w.free.Wait()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	w.used++
	return nil
}

// release leaves the window after a request failed.
func (w *window) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.used--
	w.free.Broadcast()
}

// succeed leaves the window after a request succeeded, whose last attempt took
// some time.
func (w *window) succeed(took time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.used--
	w.last = time.Now()
	switch {
	case took < w.slow:
		w.limit = min(w.limit+1, w.max)
	case took > 2*w.slow:
		w.limit = max(w.limit-1, 1)
	}
	w.free.Broadcast()
}

// yield leaves the window for a pause and until there is room again, which may
// have shrunk since. The caller is in the window again when yield returns, even
// with an error.
func (w *window) yield(ctx context.Context, pause time.Duration) error {
	stop := context.AfterFunc(ctx, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.free.Broadcast()
	})
	defer stop()
	w.release()
	err := sleep(ctx, pause)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.retry++
	for w.used >= w.limit && ctx.Err() == nil {
		w.free.Wait()
	}
	w.retry--
	w.used++
	if err == nil {
		err = context.Cause(ctx)
	}
	return err
}

// progress returns when a request last succeeded.
func (w *window) progress() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// shrink halves the window, at most once per second: one cause fails many
// requests at the same time.
func (w *window) shrink() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.halved) > time.Second {
		w.halved = time.Now()
		w.limit = max(w.limit/2, 1)
	}
}
