package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/kernel/cmdline"
)

// A powerState is a way to stop the machine.
type powerState struct {
	name    string
	signal  syscall.Signal // that requests it from process 1; the same as for busybox, so that its programs work too
	command int            // for reboot(2)
	status  *int           // exit status of a batch machine, which the init prints; nil for others
}

var (
	powerOff = powerState{"poweroff", syscall.SIGUSR2, unix.LINUX_REBOOT_CMD_POWER_OFF, nil}
	reboot   = powerState{"reboot", syscall.SIGTERM, unix.LINUX_REBOOT_CMD_RESTART, nil}
	halt     = powerState{"halt", syscall.SIGUSR1, unix.LINUX_REBOOT_CMD_HALT, nil}
)

// endsByReset reports whether a kernel argument says that only a reset ends the
// machine, as it is in Firecracker.
func endsByReset(args []cmdline.Arg) bool {
	how, _ := cmdline.Lookup(args, contract.PowerOffArg)
	return how == contract.PowerOffReboot
}

// commandFor returns the command for reboot(2) on a machine that only a reset may
// end.
func (s powerState) commandFor(resets bool) int {
	if resets && s.command == powerOff.command {
		return reboot.command
	}
	return s.command
}

// listenForPower catches all signals, so that none can end process 1, and turns
// those that ask to stop the machine into requests. Only the first request
// counts.
func listenForPower(requests chan<- powerState) {
	unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF) // ctrl-alt-del sends SIGINT instead of an immediate reboot
	signals := make(chan os.Signal, 16)
	signal.Notify(signals)
	go func() {
		for s := range signals {
			for _, state := range []powerState{powerOff, reboot, halt} {
				if s == state.signal || s == syscall.SIGINT && state == reboot {
					requestPower(requests, state)
				}
			}
		}
	}()
}

// requestPower requests to stop the machine, unless a request is pending.
func requestPower(requests chan<- powerState, state powerState) {
	select {
	case requests <- state:
	default:
	}
}

// powerCommand is the program poweroff, reboot or halt. It signals process 1,
// or with -f calls the kernel directly.
func powerCommand(name string, args []string) error {
	for _, state := range []powerState{powerOff, reboot, halt} {
		if name != state.name {
			continue
		}
		switch {
		case len(args) == 0:
			return os.NewSyscallError("kill 1", syscall.Kill(1, state.signal))
		case len(args) == 1 && args[0] == "-f":
			unix.Sync()
			return os.NewSyscallError("reboot", unix.Reboot(state.command))
		default:
			return fmt.Errorf("usage: %s [-f]", name)
		}
	}
	return errors.New("runs only as process 1 of a machine; to stop the machine, use poweroff, reboot or halt")
}

// watchPowerButton turns a press of the power button, by which clouds stop a
// machine, into a request. ACPI reports it through generic netlink (Linux,
// drivers/acpi/event.c). A machine without ACPI has no such button.
func watchPowerButton(requests chan<- powerState) error {
	acpi, err := netlink.GenlFamilyGet("acpi_event")
	if err != nil || len(acpi.Groups) == 0 {
		return nil
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_GENERIC)
	if err != nil {
		return fmt.Errorf("power button: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return fmt.Errorf("power button: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, int(acpi.Groups[0].ID)); err != nil {
		unix.Close(fd)
		return fmt.Errorf("power button: %w", err)
	}
	go func() {
		buffer := make([]byte, 4<<10)
		for {
			n, _, err := unix.Recvfrom(fd, buffer, 0)
			if err != nil && err != unix.EINTR && err != unix.ENOBUFS {
				return
			}
			if err == nil && isPowerButton(buffer[:n]) {
				requestPower(requests, powerOff)
			}
		}
	}()
	return nil
}

// isPowerButton reports whether a netlink message announces a press of the
// power button: a header of 16 bytes, a generic netlink header of 4, and an
// attribute of type 1 with a struct acpi_genl_event, which starts with the
// class of the device in 20 bytes.
func isPowerButton(message []byte) bool {
	const header, class = unix.NLMSG_HDRLEN + unix.GENL_HDRLEN, 20
	if len(message) < header {
		return false
	}
	attrs, err := nl.ParseRouteAttr(message[header:])
	if err != nil {
		return false
	}
	for _, attr := range attrs {
		if attr.Attr.Type == 1 && len(attr.Value) >= class {
			name, _, _ := bytes.Cut(attr.Value[:class], []byte{0})
			return string(name) == "button/power"
		}
	}
	return false
}
