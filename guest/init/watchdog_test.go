package main

import (
	"testing"

	"github.com/slipway-build/slipway/internal/kernel/cmdline"
)

func TestGiven(t *testing.T) {
	args := cmdline.Parse("console=ttyS0 panic=0 sysctl.kernel.panic_on_oops=0")
	if !given(args, "panic") || !given(args, "oops", "sysctl.kernel.panic_on_oops") {
		t.Error("an argument is overlooked")
	}
	if given(args, "oops") {
		t.Error("an argument is found that is not there")
	}
}

func TestWatchdogArgument(t *testing.T) {
	if err := startWatchdog(nil, cmdline.Parse("slipway.watchdog=0")); err != nil {
		t.Errorf("a watchdog that is left to others: %v", err)
	}
	const want = `slipway.watchdog="-1": not a number of seconds`
	if err := startWatchdog(nil, cmdline.Parse("slipway.watchdog=-1")); err == nil || err.Error() != want {
		t.Errorf("%v, want %q", err, want)
	}
}
