package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/slipway-build/slipway/publisher/ami"
	"github.com/slipway-build/slipway/publisher/disk"
)

// follow shows progress until stop is called. It prints a line for each step.
// On a terminal it also draws a bar, and otherwise it prints a line every 10
// seconds.
func follow(out io.Writer, monitor *ami.Monitor) (stop func()) {
	terminal := isTerminal(out)
	interval := 10 * time.Second
	if terminal {
		interval = 200 * time.Millisecond
	}
	var mu sync.Mutex
	monitor.Step = func(region, step string) {
		mu.Lock()
		defer mu.Unlock()
		if terminal {
			fmt.Fprint(out, "\r\x1b[K")
		}
		fmt.Fprintf(out, "%s: %s\n", region, step)
	}
	var meter meter
	draw := func() {
		mu.Lock()
		defer mu.Unlock()
		line := meter.line(time.Now(), monitor)
		switch {
		case line == "":
		case terminal:
			fmt.Fprint(out, "\r\x1b[K", line)
		default:
			fmt.Fprintln(out, line)
		}
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				draw()
			case <-done:
				if terminal {
					fmt.Fprint(out, "\r\x1b[K")
				}
				return
			}
		}
	}()
	return sync.OnceFunc(func() { close(done); <-ended })
}

func isTerminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// A meter formats lines of progress.
type meter struct {
	start       time.Time
	first, last int64 // blocks written at start and at the last line
}

// line returns a line of progress, or "" if there is nothing new to show.
func (m *meter) line(now time.Time, monitor *ami.Monitor) string {
	total, written := monitor.Blocks.Load(), monitor.Written.Load()
	if total == 0 {
		return ""
	}
	if m.start.IsZero() {
		m.start, m.first, m.last = now, written, -1
	}
	if written == total && m.last == written {
		return "" // the upload is complete, only steps follow
	}
	m.last = written
	const width = 30
	filled := int(written * width / total)
	line := fmt.Sprintf("[%s%s] %d/%d blocks", strings.Repeat("=", filled), strings.Repeat(" ", width-filled), written, total)
	if past := now.Sub(m.start).Seconds(); past > 0 && written > m.first {
		speed := float64(written-m.first) / past
		line += fmt.Sprintf(", %.1f MB/s, %v left", speed*disk.BlockSize/1e6, time.Duration(float64(total-written)/speed*float64(time.Second)).Round(time.Second))
	}
	if skipped := monitor.Skipped.Load(); skipped > 0 {
		line += fmt.Sprintf(", %d skipped", skipped)
	}
	if retries := monitor.Retries.Load(); retries > 0 {
		line += fmt.Sprintf(", %d retries", retries)
	}
	return line
}
