package command

import (
	"errors"
	"testing"
)

// TestMessage shows the name of a file that would control a terminal.
func TestMessage(t *testing.T) {
	got := message("slipway-packer", errors.New("layer 1 of 1: a\x1b[2J\r: damaged\nmore")).Error()
	if want := "slipway-packer: layer 1 of 1: a\\x1b[2J\\r: damaged\nmore"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
