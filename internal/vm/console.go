package vm

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/slipway-build/slipway/internal/contract"
)

// panicMark is the message of a kernel panic. Without panic= on its command
// line, Linux then hangs.
var panicMark = []byte("Kernel panic - not syncing")

// A console collects the output of the serial console with its times.
type console struct {
	start time.Time
	outs  []io.Writer

	mu       sync.Mutex
	text     []byte
	pieces   []piece
	changed  chan struct{} // closed and replaced at each piece
	panicked chan struct{} // closed when the kernel panics
}

// A piece is one write by QEMU.
type piece struct {
	end int // offset in text of the byte after it
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

// find returns the time at which the first match was complete. If nothing
// matches, it returns a channel that is closed at the next output.
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

// WaitConsole waits until the output of the serial console matches a pattern
// and returns the time from power-on to the match. It returns an error if the
// machine powers off, its kernel panics, or ctx is done before.
func (m *Machine) WaitConsole(ctx context.Context, pattern *regexp.Regexp) (time.Duration, error) {
	what := fmt.Sprintf("no %q on the console", pattern)
	for {
		over := m.over() // before the search, which then sees all output
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

// ConsoleTail returns the last lines of the serial console without control
// sequences, which firmware prints.
func (m *Machine) ConsoleTail(lines int) string {
	m.console.mu.Lock()
	defer m.console.mu.Unlock()
	return lastLines(string(m.console.text), lines)
}

// control matches ANSI control sequences (ECMA-48, CSI) and all control
// characters except the newline.
var control = regexp.MustCompile(`\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x09\x0b-\x1f\x7f]`)

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(control.ReplaceAllString(text, "")), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// exitStatusLine matches the line with which the init ends a batch machine.
var exitStatusLine = regexp.MustCompile(`(?m)^(?:\[ *\d+\.\d+\] )?` + regexp.QuoteMeta(contract.ExitStatus) + `(\d{1,3})\s*$`)

// exitStatus returns the last exit status in the output of a console.
func exitStatus(text []byte) int {
	all := exitStatusLine.FindAllSubmatch(text, -1)
	if len(all) == 0 {
		return 0
	}
	status, _ := strconv.Atoi(string(all[len(all)-1][1]))
	return status & 0xff
}
