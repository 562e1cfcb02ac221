package main

import (
	"testing"
	"time"

	"github.com/slipway-build/slipway/publisher/ami"
)

func TestMeter(t *testing.T) {
	var m meter
	monitor, start := new(ami.Monitor), time.Unix(1000, 0)
	if got := m.line(start, monitor); got != "" {
		t.Errorf("before the upload: %q", got)
	}
	monitor.Blocks.Add(300)
	monitor.Written.Add(100) // by an earlier run
	m.line(start, monitor)
	monitor.Written.Add(100)
	monitor.Skipped.Add(7)
	monitor.Retries.Add(2)
	want := "[====================          ] 200/300 blocks, 26.2 MB/s, 2s left, 7 skipped, 2 retries"
	if got := m.line(start.Add(2*time.Second), monitor); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	monitor.Written.Add(100)
	if m.line(start.Add(3*time.Second), monitor) == "" {
		t.Error("the complete upload is not shown")
	}
	if got := m.line(start.Add(4*time.Second), monitor); got != "" {
		t.Errorf("the complete upload is shown twice: %q", got)
	}
}
