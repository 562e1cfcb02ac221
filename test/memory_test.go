package test

import (
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/slipway-build/slipway/internal/testutil/stack"
	"github.com/slipway-build/slipway/internal/vm"
	"github.com/slipway-build/slipway/internal/vm/cloud"
)

var bisect = flag.Bool("bisect", false, "with -boot, find the least memory of TestMemoryBudget's machines")

// TestMemoryBudget boots machines with the memory that slipway inspect states,
// and with a tenth less, which is too little.
func TestMemoryBudget(t *testing.T) {
	if !*bootAll {
		t.Skip("boots eight machines: run make test-boot")
	}
	stack.Require(t)
	debian := filepath.Join(machineYAML(t, `kernel: {image: slipwaybuild/kernel:v1}
init: [slipwaybuild/init:v1, slipwaybuild/runc:v1]
services:
  - {name: debian, image: "debian:trixie-slim", command: [/bin/sleep, infinity]}
`), "machine.yml")
	for name, c := range map[string]struct {
		file     string
		format   string
		firmware vm.Firmware
	}{
		"minimal": {"examples/minimal.yml", "kernel+initrd", ""},
		"aws":     {"examples/aws.yml", "kernel+initrd", ""},
		"debian":  {debian, "kernel+initrd", ""},
		"uefi":    {"examples/aws.yml", "raw", vm.UEFI},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			mustSlipway(t, 0, "build", "--progress=plain", "--name=machine", "--format="+c.format, "-o", dir, c.file)
			stdout, _ := mustSlipway(t, 0, "inspect", "--json", dir)
			var report struct{ MinMemory int64 }
			if err := json.Unmarshal([]byte(stdout), &report); err != nil {
				t.Fatal(err)
			}
			estimate := int(report.MinMemory >> 20)
			config := vm.Config{Metadata: &cloud.Instance{ID: "i-0123456789abcdef0", Hostname: "small"}, Cmdline: vm.Consoles["amd64"] + " panic=-1"}
			if c.firmware == "" {
				config.Kernel, config.Initrd = filepath.Join(dir, "machine-kernel"), filepath.Join(dir, "machine-initrd.img")
			} else {
				config.Firmware, config.Disk = c.firmware, filepath.Join(dir, "machine.raw")
			}
			if *bisect {
				low, high := estimate/2, estimate*5/4
				for high-low > max(2, estimate/50) {
					if memory := (low + high) / 2; bootsWith(t, config, memory) {
						high = memory
					} else {
						low = memory
					}
				}
				t.Logf("estimate %d MiB, least memory %d MiB", estimate, high)
				if out, _, _ := slipway(t, "..", "inspect", dir); true {
					t.Log(out)
				}
				return
			}
			if !bootsWith(t, config, estimate) {
				t.Errorf("it does not boot with %d MiB", estimate)
			}
			if less := estimate * 9 / 10; bootsWith(t, config, less) {
				t.Errorf("it boots with %d MiB, not only with %d MiB", less, estimate)
			}
		})
	}
}

// bootsWith reports whether all services of a machine start with this memory in
// MiB.
func bootsWith(t *testing.T, config vm.Config, memory int) bool {
	t.Helper()
	config.Memory, config.LogDir = memory, stack.Artifacts(t)
	m, err := vm.Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	_, err = m.WaitConsole(ctx, regexp.MustCompile(`machine is up|Initramfs unpacking failed|Out of memory|out of memory|Kernel panic|System is deadlocked`))
	console, readErr := os.ReadFile(filepath.Join(config.LogDir, "console.log"))
	if readErr != nil {
		t.Fatal(readErr)
	}
	up := err == nil && regexp.MustCompile("machine is up").Match(console) && !regexp.MustCompile(`(?i)unpacking failed|out of memory`).Match(console)
	t.Logf("%d MiB: boots: %v, %v", memory, up, err)
	if !up {
		t.Logf("%s", m.ConsoleTail(6))
	}
	return up
}
