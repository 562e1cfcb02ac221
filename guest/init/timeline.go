package main

import (
	"bytes"
	"fmt"
	"html"
	"slices"
	"strings"
	"sync"
	"time"
)

// A timeline records the steps of the boot.
type timeline struct {
	mu    sync.Mutex
	spans []*span
}

// A span is a step of the boot. Times are relative to [bootTime].
type span struct {
	name       string
	begin, end time.Duration // end is 0 while it runs
	failed     bool
}

// begin records the begin of a step. The function that it returns records the
// end.
func (t *timeline) begin(name string) (end func(failed bool)) {
	s := &span{name: name, begin: sinceBoot()}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.spans = append(t.spans, s)
	return func(failed bool) {
		t.mu.Lock()
		defer t.mu.Unlock()
		s.end, s.failed = sinceBoot(), failed
	}
}

// measure records a step that cannot fail.
func (t *timeline) measure(name string, step func()) {
	end := t.begin(name)
	step()
	end(false)
}

// add records a step that ended before the timeline existed.
func (t *timeline) add(name string, begin, end time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.spans = append(t.spans, &span{name: name, begin: begin, end: end})
}

// snapshot returns the spans by begin, with those that still run ending now,
// and the end of the last one.
func (t *timeline) snapshot() (spans []span, end time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.spans {
		one := *s
		if one.end == 0 {
			one.end = sinceBoot()
		}
		end = max(end, one.end)
		spans = append(spans, one)
	}
	slices.SortStableFunc(spans, func(a, b span) int { return int(a.begin - b.begin) })
	return spans, max(end, 1)
}

// text draws the timeline for a terminal: name, begin and duration in seconds,
// and a bar.
func (t *timeline) text() string {
	const width = 40
	spans, end := t.snapshot()
	longest := 0
	for _, s := range spans {
		longest = max(longest, len(s.name))
	}
	var b strings.Builder
	for _, s := range spans {
		first := int(int64(s.begin) * width / int64(end))
		last := max(first+1, int(int64(s.end)*width/int64(end)))
		note := ""
		if s.failed {
			note = " failed"
		}
		fmt.Fprintf(&b, "%-*s %6.2f %6.2f |%s%s%s|%s\n", longest, s.name, s.begin.Seconds(), (s.end - s.begin).Seconds(),
			strings.Repeat(" ", first), strings.Repeat("=", last-first), strings.Repeat(" ", max(0, width-last)), note)
	}
	return b.String()
}

// svg draws the timeline as an image.
func (t *timeline) svg() string {
	const row, left, width, right = 20, 180, 640, 80
	spans, end := t.snapshot()
	var b bytes.Buffer
	height := row * (len(spans) + 2)
	x := func(at time.Duration) float64 { return left + float64(at)*width/float64(end) }
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", left+width+right, height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="white"/>`+"\n")
	step := time.Second
	for end/step > 16 {
		step *= 2
	}
	for at := time.Duration(0); at <= end; at += step {
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#ddd"/><text x="%.1f" y="%d" fill="#666">%d s</text>`+"\n",
			x(at), row, x(at), height, x(at)+2, row-6, int(at.Seconds()))
	}
	for i, s := range spans {
		y, color := row*(i+1), "#4a90d9"
		if s.failed {
			color = "#c0392b"
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, left-6, y+row-6, html.EscapeString(s.name))
		fmt.Fprintf(&b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"/>`, x(s.begin), y+3, max(1, x(s.end)-x(s.begin)), row-6, color)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d">%.2f s</text>`+"\n", x(s.end)+4, y+row-6, (s.end - s.begin).Seconds())
	}
	b.WriteString("</svg>\n")
	return b.String()
}
