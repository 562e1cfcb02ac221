package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestLastLines(t *testing.T) {
	text := strings.Repeat("x\n", 5) + "y"
	for lines, want := range map[int]string{0: "", 1: "y\n", 2: "x\ny\n", 9: text + "\n"} {
		if got := string(lastLines([]byte(text), lines)); got != want {
			t.Errorf("%d lines: %q", lines, got)
		}
	}
	if got := lastLines(nil, 3); len(got) != 0 {
		t.Errorf("of nothing: %q", got)
	}
}

func TestServiceUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"list", "x"}, {"stop"}, {"logs"}, {"logs", "-n", "x", "web"}, {"logs", "../secret"}, {"timeline", "-x"}, {"dance"}} {
		var out bytes.Buffer
		if err := serviceCommand(args, &out); err == nil || !strings.HasPrefix(err.Error(), "usage:") {
			t.Errorf("%q: %v", args, err)
		}
	}
}
