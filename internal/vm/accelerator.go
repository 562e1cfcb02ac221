package vm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

// An Accelerator is how QEMU runs the guest's code.
type Accelerator string

// The accelerators. TCG is emulation, which runs everywhere.
const (
	TCG Accelerator = "tcg"
	KVM Accelerator = "kvm"
	HVF Accelerator = "hvf"
)

// The tiny guest may take startTimeout to start: a device that exists can still
// hang, for example in a virtual machine without nested virtualization. From then
// on, it may run for loopTimeout. A processor takes some milliseconds and TCG less
// than 100, but some hosts emulate guests slower than TCG does.
const (
	startTimeout = 3 * time.Second
	loopTimeout  = 500 * time.Millisecond
)

// FindAccelerator returns the fastest accelerator for guests of an architecture
// that works on this host, and for TCG the reason why nothing faster works.
// It finds out by running a tiny guest.
func FindAccelerator(ctx context.Context, architecture string) (Accelerator, error) {
	native := map[string]Accelerator{"linux": KVM, "darwin": HVF}[runtime.GOOS]
	switch {
	case architecture != runtime.GOARCH:
		return TCG, fmt.Errorf("this host has an %s processor, so QEMU emulates %s", runtime.GOARCH, architecture)
	case native == "":
		return TCG, fmt.Errorf("no accelerator is known for %s", runtime.GOOS)
	case native == KVM:
		if err := checkKVM("/dev/kvm"); err != nil {
			return TCG, err
		}
	}
	if err := probe(ctx, architecture, native); err != nil {
		return TCG, fmt.Errorf("%s does not work here: %w", strings.ToUpper(string(native)), err)
	}
	return native, nil
}

// checkKVM returns what a user must do to use a device.
func checkKVM(device string) error {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return errors.New("this host has no /dev/kvm: enable virtualization in its firmware, or nested virtualization in its hypervisor")
	case errors.Is(err, os.ErrPermission):
		return errors.New("this user may not open /dev/kvm: run \"sudo usermod -aG kvm $USER\" and log in again")
	case err != nil:
		return err
	}
	return f.Close()
}

// A beginning is closed by the first output of a program.
type beginning struct {
	once sync.Once
	seen chan struct{}
}

// Write implements [io.Writer].
func (b *beginning) Write(p []byte) (int, error) {
	b.once.Do(func() { close(b.seen) })
	return len(p), nil
}

// probe runs a guest that counts down and exits.
func probe(ctx context.Context, architecture string, a Accelerator) error {
	dir, err := os.MkdirTemp("", "slipway-probe")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	rom := filepath.Join(dir, "rom")
	image, args, status := probeGuest(architecture)
	if err := os.WriteFile(rom, image, 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cpu := "host"
	if a == TCG {
		cpu = "max"
	}
	args = append(args, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-accel", string(a), "-cpu", cpu, "-m", "64", "-bios", rom, "-serial", "stdio")
	cmd := exec.CommandContext(ctx, platforms[architecture].qemu, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	running := &beginning{seen: make(chan struct{})}
	cmd.Stdout = running
	ended, err := spawn(cmd)
	if err != nil {
		return err
	}
	limit := time.AfterFunc(startTimeout, func() { cancel(fmt.Errorf("a tiny guest does not start within %v", startTimeout)) })
	defer limit.Stop()
	for ended, seen := ended, running.seen; ended != nil; {
		select {
		case <-seen:
			seen = nil
			limit.Stop()
			limit = time.AfterFunc(loopTimeout, func() { cancel(errors.New("it is slower than emulation")) })
			defer limit.Stop()
		case err = <-ended:
			ended = nil
		case <-ctx.Done():
			select {
			case <-ended:
			case <-time.After(time.Second): // a process that hangs in the kernel does not even die of SIGKILL
			}
			return context.Cause(ctx)
		}
	}
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != status {
		return fmt.Errorf("QEMU failed: %w: %s", err, lastLines(stderr.String(), 1))
	}
	return nil
}

// probeGuest returns firmware that writes a byte to the serial port, counts down
// from 2^24 and exits, QEMU's arguments for it, and the exit status of QEMU. Some
// hosts emulate each instruction of a guest: on them, a guest that exits at once
// still works.
func probeGuest(architecture string) (image []byte, args []string, status int) {
	if architecture == "arm64" {
		for _, instruction := range []uint32{
			0x52a12002, // movz w2, #0x900, lsl #16: the serial port
			0x52800d03, // mov w3, #'h'
			0x39000043, // strb w3, [x2]
			0x52a02001, // movz w1, #0x100, lsl #16
			0x71000421, // subs w1, w1, #1
			0x54ffffe1, // b.ne to subs
			0x52800100, // mov w0, #8
			0x72b08000, // movk w0, #0x8400, lsl #16: SYSTEM_OFF of PSCI 1.1, section 5.1.9
			0xd4000002, // hvc #0
			0x14000000, // b .
		} {
			image = binary.LittleEndian.AppendUint32(image, instruction)
		}
		return image, []string{"-machine", "virt,gic-version=max"}, 0
	}
	image = make([]byte, 64<<10)
	copy(image[len(image)-16:], []byte{0xeb, 0xce}) // where the processor starts: jmp to 48 bytes before
	copy(image[len(image)-64:], []byte{
		0xba, 0xf8, 0x03, // mov dx, 0x3f8: the serial port
		0xb0, 'h', // mov al, 'h'
		0xee,                   // out dx, al
		0x66, 0xb9, 0, 0, 0, 1, // mov ecx, 1<<24
		0x66, 0x49, // dec ecx
		0x75, 0xfc, // jnz to dec
		0xb0, 0x10, // mov al, 16
		0xe6, 0xf4, // out 0xf4, al
		0xf4,       // hlt
		0xeb, 0xfd, // jmp to hlt
	})
	return image, []string{"-machine", "q35", "-device", "isa-debug-exit,iobase=0xf4,iosize=1"}, 16<<1 | 1
}
