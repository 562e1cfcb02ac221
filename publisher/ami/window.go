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
	limit  int
	max    int
	halved time.Time
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
	for w.used >= w.limit && ctx.Err() == nil {
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
	}
	w.free.Broadcast()
}

// shrink halves the window, at most once per second: one cause fails many
// requests at the same time.
func (w *window) shrink() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.halved) > time.Second {
		w.halved = time.Now()
		w.limit = max(w.limit/2, 2)
	}
}
