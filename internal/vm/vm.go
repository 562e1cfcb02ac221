// Package vm boots machines in QEMU as EC2 boots them: with a disk on NVMe under
// BIOS or UEFI, a virtio network with EC2's metadata service at 169.254.169.254,
// a serial console, and access by SSH. It does not require root.
//
// By default QEMU emulates the processor (TCG), so that tests run everywhere.
//
// A program that imports this package serves as a helper of QEMU when its first
// argument says so.
package vm

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/slipway-build/slipway/internal/vm/cloud"
)

// grace is how long QEMU may take to exit after SIGTERM and to answer a monitor
// command.
const grace = 5 * time.Second

// A Config describes the hardware and what boots on it. If Kernel is set, QEMU
// loads it with Initrd and Cmdline. Otherwise the machine boots from Disk or
// CD.
type Config struct {
	Architecture string      // as in GOARCH; default: amd64
	Accelerator  Accelerator // default: TCG
	Firmware     Firmware    // default: BIOS
	Disk         string      // disk image, which never changes: QEMU discards the guest's writes
	DiskFormat   string      // QEMU's name of the image format; default: raw
	Data         []Drive     // more disks, on virtio; the guest's writes change them
	Arguments    []string    // more of QEMU's
	Kernel       string
	Initrd       string
	Cmdline      string

	// MicroVM is a machine without firmware, PCI, CD drive and TPM. QEMU loads
	// Kernel, and devices are virtio on MMIO. On amd64, a reset ends it, and it has
	// no power button.
	MicroVM bool

	// CPUs is the number of processors; default: 1. With more, QEMU 7.2 can
	// hang under TCG where the kernel patches code that another CPU runs.
	// QEMU 10.0 of Debian 13 did not hang in 5 boots.
	CPUs   int
	Memory int // in MiB; default: 1024

	RTC string // time of the hardware clock, as in QEMU's -rtc base=; default: now

	// MemoryFile is an optional file to create, which holds the machine's
	// memory. Its blocks on disk are the memory that the machine ever used.
	MemoryFile string

	// Variables is an optional file that keeps the variables of UEFI. It is
	// created if it does not exist. By default, each start has the firmware's
	// own variables.
	Variables string

	// Keys is the folder with the keys that the firmware OwnKeys trusts, see
	// package bootkeys. They are stored in Variables when that is created.
	Keys string

	// TPM is an optional directory that keeps the state of a TPM 2.0. It is
	// created if it does not exist.
	TPM string

	// Wrapper is an optional command that runs QEMU, for example nsenter with a
	// network namespace.
	Wrapper []string

	Metadata        *cloud.Instance // nil for a machine without metadata service
	MetadataHandler http.Handler    // optional, serves the metadata instead
	BoardAsset      string          // asset tag of the board, which on EC2 is the ID of the instance
	NoNetwork       bool            // no network interface
	Forwards        []Forward       // to the guest, beside ssh

	CD string // ISO image in a CD drive on virtio, which boots if nothing else does

	LogDir  string    // directory of console.log, qemu.log and others; created if missing
	Console io.Writer `json:"-"` // optional copy of the serial console's output
}

// A Drive is a disk with a raw image.
type Drive struct {
	File   string
	Serial string // optional; up to 20 bytes
}

// A Forward makes a port of the guest available on the host.
type Forward struct {
	Address   string // IPv4 address of the host
	Port      int    // of the host
	GuestPort int
	UDP       bool // default: TCP
}

// A Machine is a running machine. Times are since power-on.
type Machine struct {
	SSHPort int // port of 127.0.0.1 that QEMU forwards to the guest's port 22

	logDir  string
	control string // directory of the sockets
	console *console
	serial  io.Writer // input of the serial console
	cancel  context.CancelFunc
	qemu    *os.Process
	done    chan struct{} // closed when QEMU and its helpers have exited
	err     error         // how QEMU exited; valid only after done is closed
}

// Start powers a machine on. The machine runs until its guest powers off, the
// caller calls Kill, ctx is done, or this process exits for any reason. The
// caller must call Kill, which also waits until all processes of the machine
// have exited.
func Start(ctx context.Context, config Config) (*Machine, error) {
	if err := config.check(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(config.LogDir, 0o755); err != nil {
		return nil, fmt.Errorf("create the log directory: %w", err)
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	m := &Machine{SSHPort: port, logDir: config.LogDir, cancel: cancel, done: make(chan struct{})}
	if err := m.start(ctx, config); err != nil {
		cancel()
		return nil, err
	}
	return m, nil
}

func (m *Machine) start(ctx context.Context, config Config) error {
	log, err := os.Create(filepath.Join(m.logDir, "console.log"))
	if err != nil {
		return fmt.Errorf("create the console log: %w", err)
	}
	// A file, not a pipe: the relays that QEMU starts share its stderr and can
	// exit shortly after it.
	stderr, err := os.Create(filepath.Join(m.logDir, "qemu.log"))
	if err != nil {
		log.Close()
		return fmt.Errorf("create QEMU's log: %w", err)
	}
	defer stderr.Close()

	// Not in logDir, because the path of a socket has at most 103 bytes.
	if m.control, err = os.MkdirTemp("", "vm"); err != nil {
		log.Close()
		return fmt.Errorf("create a directory for sockets: %w", err)
	}
	helpers, err := m.startHelpers(ctx, config)
	if err != nil {
		log.Close()
		os.RemoveAll(m.control)
		return err
	}
	args, err := config.args(m.sockets())
	if err != nil {
		log.Close()
		m.cancel()
		helpers.wait()
		os.RemoveAll(m.control)
		return err
	}
	command := slices.Concat(config.Wrapper, []string{config.platform().qemu}, args)
	qemu := exec.CommandContext(ctx, command[0], command[1:]...)
	m.console = newConsole(log, config.Console)
	qemu.Stdout, qemu.Stderr = m.console, stderr
	qemu.Cancel = func() error { return qemu.Process.Signal(syscall.SIGTERM) }
	qemu.WaitDelay = grace
	var ended <-chan error
	if m.serial, err = qemu.StdinPipe(); err == nil {
		ended, err = spawn(qemu)
	}
	if err != nil {
		log.Close()
		m.cancel()
		helpers.wait()
		os.RemoveAll(m.control)
		return fmt.Errorf("start QEMU: %w", err)
	}
	m.qemu = qemu.Process
	go func() {
		err := <-ended
		switch {
		case ctx.Err() != nil:
			m.err = errKilled
		case err != nil:
			m.err = fmt.Errorf("QEMU failed: %w: %s", err, tailOf(stderr.Name(), 5))
		}
		m.cancel()
		helpers.wait()
		log.Close()
		os.RemoveAll(m.control)
		close(m.done)
	}()
	return nil
}

// Wait waits until the guest has powered the machine off. It returns an error
// if the kernel panics, the machine is killed, QEMU fails or ctx is done. A
// reboot does not end the wait.
func (m *Machine) Wait(ctx context.Context) error {
	select {
	case <-m.done:
		return m.err
	case <-m.console.panicked:
		return m.failure("the machine did not power off", errPanic)
	case <-ctx.Done():
		return m.failure("the machine did not power off", context.Cause(ctx))
	}
}

// ExitStatus returns the exit status that the guest reported on the console when
// it powered off; default: 0. See [contract.ExitStatus].
func (m *Machine) ExitStatus() int {
	m.console.mu.Lock()
	defer m.console.mu.Unlock()
	return exitStatus(m.console.text)
}

// Type types text on the serial console.
func (m *Machine) Type(text string) error {
	if _, err := io.WriteString(m.serial, text); err != nil {
		return fmt.Errorf("serial console: %w", err)
	}
	return nil
}

// PressPowerButton asks the guest to power off, as EC2 does.
func (m *Machine) PressPowerButton(ctx context.Context) error {
	return m.Monitor(ctx, "system_powerdown")
}

// Monitor sends a command to QEMU's monitor, for example
// "sendkey ctrl-alt-delete". It waits at most 5 seconds.
func (m *Machine) Monitor(ctx context.Context, command string) error {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", m.monitor())
	if err != nil {
		return fmt.Errorf("monitor: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	const prompt = "(qemu) "
	answers := bufio.NewReader(conn)
	read := func() (text string, err error) {
		for !strings.HasSuffix(text, prompt) {
			c, err := answers.ReadByte()
			if err != nil {
				return text, fmt.Errorf("monitor: %w", err)
			}
			text += string(c)
		}
		return text, nil
	}
	if _, err := read(); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(conn, command); err != nil {
		return fmt.Errorf("monitor: %w", err)
	}
	_, err = read()
	return err
}

// CPUTime returns the processor time that QEMU has used for the running
// machine, in steps of 10 ms. In contrast to elapsed time, it hardly depends on
// the load of the host.
func (m *Machine) CPUTime() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.qemu.Pid))
	if err != nil {
		return 0, fmt.Errorf("QEMU's processor time: %w", err)
	}
	// proc_pid_stat(5): utime and stime are fields 14 and 15, in ticks of 10
	// ms. The name in field 2 can contain spaces.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var ticks time.Duration
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("QEMU's processor time: %w", err)
		}
		ticks += time.Duration(n)
	}
	return ticks * 10 * time.Millisecond, nil
}

func (m *Machine) monitor() string { return m.sockets().monitor }

func (m *Machine) sockets() sockets {
	return sockets{
		ssh:      m.SSHPort,
		monitor:  filepath.Join(m.control, "monitor"),
		metadata: filepath.Join(m.control, "metadata"),
		tpm:      filepath.Join(m.control, "tpm"),
	}
}

// Kill cuts the power and waits until QEMU and its helpers have exited. It does nothing if they already have.
func (m *Machine) Kill() {
	m.cancel()
	<-m.done
}

var (
	errOff    = errors.New("the machine powered itself off")
	errKilled = errors.New("the machine was killed")
	errPanic  = errors.New("its kernel panicked")
)

// over returns why the machine does not run anymore, or nil while it runs.
func (m *Machine) over() error {
	select {
	case <-m.done:
		if m.err == nil {
			return errOff
		}
		return m.err
	case <-m.console.panicked:
		return errPanic
	default:
		return nil
	}
}

// failure returns an error with the time since power-on and the path of the
// console log.
func (m *Machine) failure(what string, why error) error {
	return fmt.Errorf("%s, %.0f s after power-on: %w; see %s", what,
		m.console.now().Seconds(), why, filepath.Join(m.logDir, "console.log"))
}
