package ami

import (
	"context"
	"testing"
	"time"
)

func TestWindow(t *testing.T) {
	w := newWindow(20)
	for range 16 {
		if err := w.acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := w.acquire(ctx); err == nil {
		t.Fatal("the new window is larger than 16")
	}
	for range 16 {
		w.release(true)
	}
	if w.limit != 20 {
		t.Errorf("grew to %d, want 20", w.limit)
	}
	w.shrink()
	w.shrink() // within the same second
	if w.limit != 10 {
		t.Errorf("shrank to %d, want 10", w.limit)
	}
}
