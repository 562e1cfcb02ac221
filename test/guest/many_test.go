package guest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/internal/testutil/stack"
	"github.com/slipway-build/slipway/internal/vm"
)

// TestManyServices boots a machine with far more services than its processor
// can start at once. All of them come up, in their first attempt, and one shim
// watches all of them.
func TestManyServices(t *testing.T) {
	t.Parallel()
	services := 20
	if *bootAll {
		services = 60
	}
	dir := t.TempDir()
	writeMany(t, dir, services)
	m := boot(t, build(t, filepath.Join(dir, "many.yml")), "")
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	if _, err := m.WaitConsole(ctx, regexp.MustCompile(`machine is up`)); err != nil {
		t.Fatal(err)
	}
	m.says(t, fmt.Sprintf(`machine is up, services started: %d`, services))
	if line := regexp.MustCompile(`service \S+: failed.*|containerd: record.*`).Find(m.console(t)); line != nil {
		t.Errorf("%s", line)
	}
	shims := map[string]bool{}
	for _, line := range regexp.MustCompile(`sleep\d+ runs below (\d+)`).FindAllSubmatch(m.console(t), -1) {
		shims[string(line[1])] = true
	}
	if len(shims) != 1 {
		t.Errorf("%d shims", len(shims))
	}
	m.press(t, "system_powerdown")
	m.wait(t)
}

// writeMany writes a machine with so many services that say on the console that
// they run, and below which process, and sleep. Half of them restart.
func writeMany(t testing.TB, dir string, services int) {
	t.Helper()
	var yaml strings.Builder
	yaml.WriteString(`# syntax=slipwaybuild/slipway:1
kernel: {image: slipwaybuild/kernel:v1, cmdline: console=ttyS0 printk.devkmsg=on}
init: [slipwaybuild/init:v1, slipwaybuild/runc:v1, slipwaybuild/containerd:v1, slipwaybuild/ctr:v1]
services:
`)
	for i := range services {
		fmt.Fprintf(&yaml, `  - name: sleep%[1]d
    image: slipwaybuild/init:v1
    command: [/bin/sh, -c, "echo \"<1>sleep%[1]d runs below $PPID\" >/dev/kmsg; trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"]
    pid: host
    binds: [/dev/kmsg:/dev/kmsg]
    devices: [{path: /dev/kmsg, type: c, major: 1, minor: 11, mode: "0666"}]
    annotations: {build.slipway.restart: "%[2]s"}
`, i, []string{"always", "no"}[i%2])
	}
	if err := os.WriteFile(filepath.Join(dir, "many.yml"), []byte(yaml.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkServices starts a hundred services, and for comparison starts them with
// the peer's init. It reports the seconds from the start of the kernel until all
// run.
func BenchmarkServices(b *testing.B) {
	stack.Require(b)
	const services = 100
	dir := b.TempDir()
	writeMany(b, dir, services)
	name, args := peer(b)
	for _, m := range []struct {
		name string
		args []string
	}{{"slipway", nil}, {name, args}} {
		out := b.TempDir()
		stack.MustBuildx(b, ".", append(m.args, "-f", filepath.Join(dir, "many.yml"), "--target", "kernel+initrd", "--build-arg", "NAME=machine", "-o", out, dir)...)
		b.Run(m.name, func(b *testing.B) {
			for b.Loop() {
				benchmarkServices(b, out, fmt.Sprintf(`(?s)(sleep\d+ runs.*){%d}`, services))
			}
		})
	}
}

func benchmarkServices(b *testing.B, dir, last string) {
	ctx, cancel := context.WithTimeout(b.Context(), 15*time.Minute)
	defer cancel()
	config := vm.Config{Memory: 2048, NoNetwork: true, LogDir: stack.Artifacts(b)}
	bootFiles(b, dir, &config)
	machine, err := vm.Start(ctx, config)
	if err != nil {
		b.Fatal(err)
	}
	defer machine.Kill()
	kernel, err := machine.WaitConsole(ctx, regexp.MustCompile("Linux version"))
	if err != nil {
		b.Fatal(err)
	}
	end, err := machine.WaitConsole(ctx, regexp.MustCompile(last))
	if err != nil {
		b.Fatalf("%v\n%s", err, machine.ConsoleTail(40))
	}
	used, err := machine.CPUTime()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric((end - kernel).Seconds(), "s-to-all")
	b.ReportMetric(used.Seconds(), "cpu-s-to-all")
	b.ReportMetric(0, "ns/op")
}
