package ami

import (
	"context"
	"testing"
	"time"
)

func TestWindow(t *testing.T) {
	w := newWindow(8, 20*time.Second)
	for range 4 {
		if err := w.acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := w.acquire(ctx); err == nil {
		t.Fatal("the new window is larger than 4")
	}
	for range 4 {
		w.succeed(6 * time.Second)
	}
	if w.limit != 4 {
		t.Errorf("grew to %d on a slow line, want 4", w.limit)
	}
	for range 6 {
		w.succeed(time.Second)
	}
	if w.limit != 8 {
		t.Errorf("grew to %d, want 8", w.limit)
	}
	w.shrink()
	w.shrink() // within the same second
	if w.limit != 4 {
		t.Errorf("shrank to %d, want 4", w.limit)
	}
	for range 9 {
		w.succeed(11 * time.Second)
	}
	if w.limit != 1 {
		t.Errorf("shrank to %d on a slow line, want 1", w.limit)
	}
}

// TestYield checks that requests that are sent again respect a window that has
// shrunk, and precede new ones.
func TestYield(t *testing.T) {
	w := newWindow(2, time.Second)
	for range 2 {
		if err := w.acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	w.shrink() // to 1
	again := make(chan error)
	go func() { again <- w.yield(t.Context(), 0) }()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := w.acquire(ctx); err == nil {
		t.Fatal("a new request preceded one that is sent again")
	}
	select {
	case <-again:
		t.Fatal("two requests are in a window of one")
	default:
	}
	w.release()
	if err := <-again; err != nil {
		t.Error(err)
	}
	if w.used != 1 || w.retry != 0 {
		t.Errorf("%d requests in the window, %d waiting", w.used, w.retry)
	}
}
