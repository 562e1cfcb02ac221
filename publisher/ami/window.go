package ami

import (
	"context"
	"sync"
	"time"
)

// A window limits the number of concurrent requests as TCP limits
// unacknowledged data: it grows by one with each success and halves when AWS
// throttles or a request times out. So a slow line never carries more blocks
// than it can deliver before they time out.
type window struct {
	mu     sync.Mutex
	free   sync.Cond
	used   int
	retry  int // requests that wait to be sent again, before all new ones
	limit  int
	max    int
	halved time.Time
	last   time.Time // when a request last succeeded
}

func newWindow(most int) *window {
	w := &window{limit: min(16, most), max: most}
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

func (w *window) release(success bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.used--
	if success {
		w.limit = min(w.limit+1, w.max)
		w.last = time.Now()
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
	w.release(false)
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
