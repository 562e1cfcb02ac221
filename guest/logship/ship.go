package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/slipway-build/slipway/guest/memlog"
)

// A queue holds entries that are still to be sent.
type queue struct {
	max int // bytes

	mu      sync.Mutex
	entries []memlog.Entry
	bytes   int
	dropped int           // since the last take
	filled  chan struct{} // receives an element when there are entries
}

func newQueue(max int) *queue { return &queue{max: max, filled: make(chan struct{}, 1)} }

// sizeOf returns about how much memory an entry needs.
func sizeOf(e memlog.Entry) int { return len(e.Source) + len(e.Msg) + 128 }

// add adds an entry. If there is no room, it drops the oldest ones.
func (q *queue) add(e memlog.Entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.entries = append(q.entries, e)
	q.bytes += sizeOf(e)
	for q.bytes > q.max {
		q.bytes -= sizeOf(q.entries[0])
		q.entries[0] = memlog.Entry{} // for the garbage collector
		q.entries = q.entries[1:]
		q.dropped++
	}
	select {
	case q.filled <- struct{}{}:
	default:
	}
}

// Limits of a batch.
const (
	maxBatch      = 500
	maxBatchBytes = 512 << 10
)

// take waits for entries and removes some. It also returns how many were dropped
// before them. Once ctx has ended it does not wait, and returns nothing when the
// queue is empty.
func (q *queue) take(ctx context.Context) (batch []memlog.Entry, dropped int) {
	for {
		q.mu.Lock()
		size := 0
		for _, e := range q.entries {
			if size += sizeOf(e); len(batch) > 0 && size > maxBatchBytes || len(batch) == maxBatch {
				break
			}
			batch = append(batch, e)
			q.bytes -= sizeOf(e)
		}
		q.entries = q.entries[len(batch):]
		if len(q.entries) == 0 {
			q.entries = nil
		}
		if len(batch) > 0 {
			dropped, q.dropped = q.dropped, 0
		}
		q.mu.Unlock()
		if len(batch) > 0 {
			return batch, dropped
		}
		select {
		case <-q.filled:
		case <-ctx.Done():
			return nil, 0
		}
	}
}

// The delay before a batch is sent again doubles each time. A random part of it
// keeps machines from returning at the same time.
const (
	firstDelay = time.Second
	maxDelay   = time.Minute
)

// lingering is how long a stopped shipper tries to send what it has.
const lingering = 5 * time.Second

// A shipper sends entries to one destination.
type shipper struct {
	name       string
	sink       sink
	queue      *queue
	firstDelay time.Duration
	maxDelay   time.Duration

	dropped int // in total
}

func newShipper(name string, sink sink, buffer int) *shipper {
	return &shipper{name: name, sink: sink, queue: newQueue(buffer), firstDelay: firstDelay, maxDelay: maxDelay}
}

// run sends entries until ctx ends, and what remains for a short time after that.
func (s *shipper) run(ctx context.Context) {
	sending, cancel := context.WithCancel(context.Background())
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lingering, cancel) })()
	for {
		batch, dropped := s.queue.take(ctx)
		if len(batch) == 0 || sending.Err() != nil {
			return
		}
		if dropped > 0 {
			s.dropped += dropped
			text := fmt.Sprintf("%d lines were dropped before the next one, %d in total", dropped, s.dropped)
			log.Printf("%s: %s", s.name, text)
			batch = append([]memlog.Entry{{Time: batch[0].Time, Source: self, Msg: text}}, batch...)
		}
		s.deliver(sending, batch)
	}
}

// deliver sends a batch until that succeeds, ctx ends or the destination rejects
// it for good.
func (s *shipper) deliver(ctx context.Context, batch []memlog.Entry) {
	begin, delay := time.Now(), s.firstDelay
	for failed := false; ; failed = true {
		err := s.sink.send(ctx, batch)
		switch {
		case err == nil && failed:
			log.Printf("%s: works again after %v", s.name, time.Since(begin).Round(time.Second))
			return
		case err == nil:
			return
		case errors.Is(err, errRejected):
			s.dropped += len(batch)
			log.Printf("%s: %v: %d lines dropped, %d in total", s.name, err, len(batch), s.dropped)
			return
		case !failed:
			log.Printf("%s: %v; trying again", s.name, err)
		}
		wait := delay/2 + rand.N(delay/2+1)
		if after := (retryAfter)(0); errors.As(err, &after) {
			wait = max(wait, min(time.Duration(after), s.maxDelay))
		}
		select {
		case <-ctx.Done():
			log.Printf("%s: stopped with %d lines that were not sent", s.name, len(batch))
			return
		case <-time.After(wait):
		}
		delay = min(2*delay, s.maxDelay)
	}
}

// retryAfter is an error of a destination that says how long to wait.
type retryAfter time.Duration

func (r retryAfter) Error() string { return "asks to wait for " + time.Duration(r).String() }
