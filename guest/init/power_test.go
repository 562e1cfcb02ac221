package main

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/internal/kernel/cmdline"
)

func TestCommandFor(t *testing.T) {
	status := 3
	batch := powerOff
	batch.status = &status
	for _, test := range []struct {
		state powerState
		line  string
		want  int
	}{
		{powerOff, "", unix.LINUX_REBOOT_CMD_POWER_OFF},
		{powerOff, "slipway.poweroff=reboot", unix.LINUX_REBOOT_CMD_RESTART},
		{batch, "slipway.poweroff=reboot", unix.LINUX_REBOOT_CMD_RESTART},
		{powerOff, "slipway.poweroff=now", unix.LINUX_REBOOT_CMD_POWER_OFF},
		{halt, "slipway.poweroff=reboot", unix.LINUX_REBOOT_CMD_HALT},
	} {
		if got := test.state.commandFor(endsByReset(cmdline.Parse(test.line))); got != test.want {
			t.Errorf("%s with %q: %#x, want %#x", test.state.name, test.line, got, test.want)
		}
	}
}
