package vm

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"regexp"
	"sort"
	"strings"
	"sync"
	"time"
)

// panicMark is what Linux prints when it gives up; with no panic= on the command line it then halts for ever.
var panicMark = []byte("Kernel panic - not syncing")

// console collects the serial console and knows when each piece of it came.
type console struct {
	start time.Time
	outs  []io.Writer

	mu       sync.Mutex
	text     []byte
	pieces   []piece
	changed  chan struct{} // closed and replaced at each piece
	panicked chan struct{} // closed when the kernel has panicked
}

// piece is one write of QEMU's.
type piece struct {
	end int // offset in text of the byte behind it
	at  time.Duration
}

func newConsole(outs ...io.Writer) *console {
	c := &console{start: time.Now(), changed: make(chan struct{}), panicked: make(chan struct{})}
	for _, out := range outs {
		if out != nil {
			c.outs = append(c.outs, out)
		}
	}
	return c
}

func (c *console) now() time.Duration { return time.Since(c.start) }

func (c *console) Write(data []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	panicked := bytes.Contains(c.text, panicMark)
	c.text = append(c.text, data...)
	if !panicked && bytes.Contains(c.text, panicMark) {
		close(c.panicked)
	}
	c.pieces = append(c.pieces, piece{len(c.text), c.now()})
	close(c.changed)
	c.changed = make(chan struct{})
	for _, out := range c.outs {
		if _, err := out.Write(data); err != nil {
			return 0, err
		}
	}
	return len(data), nil
}

// find gives the time when the first match was complete. If there is none, the channel is closed at the next change.
func (c *console) find(pattern *regexp.Regexp) (at time.Duration, found bool, changed <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	match := pattern.FindIndex(c.text)
	if match == nil {
		return 0, false, c.changed
	}
	i := sort.Search(len(c.pieces), func(i int) bool { return c.pieces[i].end >= match[1] })
	return c.pieces[i].at, true, nil
}

// WaitConsole waits until the serial console shows a match and gives the time from power-on to it. It fails when the
// machine ends or its kernel panics before, and at the end of ctx.
func (m *Machine) WaitConsole(ctx context.Context, pattern *regexp.Regexp) (time.Duration, error) {
	what := fmt.Sprintf("no %q on the console", pattern)
	for {
		over := m.over() // before the search: what came until then is found
		at, found, changed := m.console.find(pattern)
		if found {
			return at, nil
		}
		if over != nil {
			return 0, m.failure(what, over)
		}
		select {
		case <-changed:
		case <-m.done:
		case <-ctx.Done():
			return 0, m.failure(what, context.Cause(ctx))
		}
	}
}

// ConsoleTail gives the last lines of the serial console, without the control sequences that firmware likes.
func (m *Machine) ConsoleTail(lines int) string {
	m.console.mu.Lock()
	defer m.console.mu.Unlock()
	return lastLines(string(m.console.text), lines)
}

// control matches ANSI control sequences (ECMA-48, CSI) and all control characters but the newline.
var control = regexp.MustCompile(`\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x09\x0b-\x1f\x7f]`)

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(control.ReplaceAllString(text, "")), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
