package guest

import (
	"flag"
	"testing"

	"github.com/slipway-build/slipway/internal/vm"
)

var bootAll = flag.Bool("boot", false, "also boot a machine with UEFI that reboots because of its health, and crashes, one with 60 services, one with rsyslog, and the package docker")

// TestHealth boots a machine with services that are healthy, unhealthy at first,
// and healthy too late. With UEFI the last one makes the machine reboot, and
// what the kernel says in a crash is shown on the next boot.
func TestHealth(t *testing.T) {
	t.Parallel()
	dir := build(t, "health.yml")
	said := []string{
		`service web: healthy [\d.]+ s after its start`,
		`service flaky: unhealthy: exit 4: "not yet"`,
		`service flaky: unhealthy, ended, killed by SIGKILL; restarting in 1s`,
		`service flaky: healthy [\d.]+ s after its start`,
		`machine is not healthy: service slow, which must be within 8s, is (waiting|starting)(: exit 1)?`,
		`REPORT checked`,
		`REPORT late: service: service slow is (starting|unhealthy): exit 1`,
		`REPORT list: flaky +running +healthy .*`,
		`REPORT list: report +running +- .*`,
		`REPORT list: web +running +healthy .*`,
		`REPORT healthy`,
		`machine is healthy`,
	}
	t.Run("bios", func(t *testing.T) {
		m := bootWith(t, dir, vm.Config{NoNetwork: true})
		m.wait(t)
		m.says(t, append(said, `not rebooting: nothing survives that can count reboots: the machine has no EFI variables, and /var/lib/slipway is not on a disk`)...)
	})
	if !*bootAll {
		return
	}
	t.Run("uefi", func(t *testing.T) {
		m := bootWith(t, dir, vm.Config{NoNetwork: true, Firmware: vm.UEFI})
		m.awaitReboot(t, "reboot 1 of at most 1")
		m.awaitReboot(t, "sysrq: Trigger a crash")
		m.awaitAfter(t, "sysrq: Trigger a crash", "poweroff now")
		m.says(t, append(said,
			`not rebooting: the machine was not healthy after 1 reboots`,
			`pstore: the kernel recorded "Shutdown#1" at 20\d\d-.*, see /var/log/pstore\.log`,
			` +\| .*slipway: onboot 000-job: failed: exit 3`,
			` +\| .*slipway: \| no more beans`,
			` +\| .*slipway: machine is not healthy: service slow is (waiting|starting)(: exit 1)?`,
			`REPORT counter: 0`,
			`pstore: the kernel recorded "Panic#1" at 20\d\d-.*, see /var/log/pstore\.log`,
			` +\| .*Kernel panic - not syncing: sysrq triggered crash.*`,
			`REPORT pstore: 1 1 0`,
		)...)
	})
}
