// Package vm boots machines in QEMU as EC2 boots them, for tests and the demo:
// with a disk on NVMe under SeaBIOS or OVMF, a virtio network with EC2's
// metadata service at 169.254.169.254, a serial console, and access by SSH.
//
// QEMU emulates the processor (TCG), so that it runs wherever the tests run. It
// does not require root.
package vm

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Firmware loads the boot loader from the disk.
type Firmware string

// Firmware of EC2's boot modes.
const (
	BIOS Firmware = "bios" // SeaBIOS, which comes with QEMU
	UEFI Firmware = "uefi" // OVMF, of the Debian package ovmf
)

// A platform is how QEMU emulates a machine of an architecture.
type platform struct {
	qemu, qemuPackage string
	machine           []string // QEMU's arguments
	code, vars        string   // paths of the UEFI firmware and its variables
	firmwarePackage   string
}

var platforms = map[string]platform{
	"amd64": {
		qemu: "qemu-system-x86_64", qemuPackage: "qemu-system-x86",
		// Without a display, SeaBIOS and GRUB print on the serial port, which
		// is logged.
		machine: []string{"-machine", "q35,graphics=off"},
		code:    "/usr/share/OVMF/OVMF_CODE_4M.fd", vars: "/usr/share/OVMF/OVMF_VARS_4M.fd", firmwarePackage: "ovmf",
	},
	"arm64": {
		qemu: "qemu-system-aarch64", qemuPackage: "qemu-system-arm",
		machine: []string{"-machine", "virt", "-cpu", "cortex-a57"},
		code:    "/usr/share/AAVMF/AAVMF_CODE.fd", vars: "/usr/share/AAVMF/AAVMF_VARS.fd", firmwarePackage: "qemu-efi-aarch64",
	},
}

// Consoles maps an architecture to the kernel argument that selects the first
// serial port as the console.
var Consoles = map[string]string{"amd64": "console=ttyS0", "arm64": "console=ttyAMA0"}

// grace is how long QEMU may take to exit after SIGTERM and to answer a monitor
// command.
const grace = 5 * time.Second

// A Config describes the hardware and what boots on it. If Kernel is set, QEMU
// loads it with Initrd and Cmdline. Otherwise the machine boots from Disk or
// CD.
type Config struct {
	Architecture string   // as in GOARCH; default: amd64
	Firmware     Firmware // default: BIOS
	Disk         string   // disk image, which never changes: QEMU discards the guest's writes
	DiskFormat   string   // QEMU's name of the image format; default: raw
	Data         []string // raw images of more disks, on virtio; the guest's writes change them
	Devices      []string // more of QEMU's devices, each the value of -device
	Kernel       string
	Initrd       string
	Cmdline      string

	// CPUs is the number of processors; default: 1. With more, QEMU 7.2 can
	// hang where the kernel patches code that another CPU runs.
	CPUs   int
	Memory int // in MiB; default: 1024

	// MemoryFile is an optional file to create, which holds the machine's
	// memory. Its blocks on disk are the memory that the machine ever used.
	MemoryFile string

	Metadata  *Metadata // nil for a machine without metadata service
	NoNetwork bool      // no network interface

	CD string // ISO image in a CD drive on virtio, which boots if nothing else does

	LogDir      string    // directory of console.log, qemu.log and metadata.log; created if missing
	Console     io.Writer // optional copy of the serial console's output
	Interactive bool      // the serial console reads from this process's terminal; ctrl-a x stops QEMU
}

// A Machine is a running machine. Times are since power-on.
type Machine struct {
	SSHPort int // port of 127.0.0.1 that QEMU forwards to the guest's port 22

	logDir  string
	control string // directory of the monitor's socket
	console *console
	serial  io.Writer // input of the serial console; nil if that is the terminal
	cancel  context.CancelFunc
	qemu    *os.Process
	done    chan struct{} // closed when QEMU and the metadata service have exited
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
	// A file, not a pipe: the helpers that QEMU starts for guestfwd share its
	// stderr and can exit shortly after it.
	stderr, err := os.Create(filepath.Join(m.logDir, "qemu.log"))
	if err != nil {
		log.Close()
		return fmt.Errorf("create QEMU's log: %w", err)
	}
	defer stderr.Close()

	metadata := &service{}
	if config.Metadata != nil {
		if metadata, err = config.Metadata.serve(ctx, m.logDir); err != nil {
			log.Close()
			return err
		}
	}

	// Not in logDir, because the path of a socket has at most 107 bytes.
	if m.control, err = os.MkdirTemp("", "vm"); err != nil {
		log.Close()
		return fmt.Errorf("create a directory for the monitor: %w", err)
	}
	args := append(config.args(m.SSHPort, metadata.port), "-monitor", "unix:"+m.monitor()+",server=on,wait=off")
	qemu := exec.CommandContext(ctx, config.platform().qemu, args...)
	m.console = newConsole(log, config.Console)
	qemu.Stdout, qemu.Stderr = m.console, stderr
	qemu.Cancel = func() error { return qemu.Process.Signal(syscall.SIGTERM) }
	qemu.WaitDelay = grace
	if config.Interactive {
		qemu.Stdin = os.Stdin
	} else {
		m.serial, err = qemu.StdinPipe()
	}

	var ended <-chan error
	if err == nil {
		ended, err = spawn(qemu)
	}
	if err != nil {
		log.Close()
		os.RemoveAll(m.control)
		m.cancel()
		metadata.wait()
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
		metadata.wait()
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

// Type types text on the serial console. The machine must not be Interactive.
func (m *Machine) Type(text string) error {
	if _, err := io.WriteString(m.serial, text); err != nil {
		return fmt.Errorf("serial console: %w", err)
	}
	return nil
}

// Monitor sends a command to QEMU's monitor, for example "system_powerdown" for
// the power button or "sendkey ctrl-alt-delete". It waits at most 5 seconds.
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

func (m *Machine) monitor() string { return filepath.Join(m.control, "monitor") }

// Kill cuts the power and waits until QEMU and the metadata service have
// exited. It does nothing if they already have.
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

func (c *Config) platform() platform { return platforms[cmp.Or(c.Architecture, "amd64")] }

func (c *Config) check() error {
	p := c.platform()
	if p.qemu == "" {
		return fmt.Errorf("unknown architecture %q", c.Architecture)
	}
	if c.Disk == "" && c.Kernel == "" && c.CD == "" && len(c.Data) == 0 {
		return errors.New("a machine requires a disk, a CD or a kernel to boot")
	}
	for _, file := range append([]string{c.Disk, c.Kernel, c.Initrd, c.CD}, c.Data...) {
		if file == "" {
			continue
		}
		if _, err := os.Stat(file); err != nil {
			return fmt.Errorf("nothing to boot: %w", err)
		}
	}
	if c.LogDir == "" {
		return errors.New("a machine requires a log directory")
	}
	switch c.Firmware {
	case "", BIOS:
	case UEFI:
		if _, err := os.Stat(p.code); err != nil {
			return fmt.Errorf("UEFI firmware: %w: apt-get install %s", err, p.firmwarePackage)
		}
	default:
		return fmt.Errorf("unknown firmware %q: must be %s or %s", c.Firmware, BIOS, UEFI)
	}
	if err := installed(p.qemu, p.qemuPackage); err != nil {
		return err
	}
	if c.Metadata != nil {
		return installed("nc", "netcat-openbsd")
	}
	return nil
}

// installed returns an error with the Debian package to install if a program is
// not in PATH.
func installed(program, pkg string) error {
	if _, err := exec.LookPath(program); err != nil {
		return fmt.Errorf("%s is not installed: apt-get install %s", program, pkg)
	}
	return nil
}

// args returns QEMU's arguments, see
// https://www.qemu.org/docs/master/system/invocation.html.
func (c *Config) args(sshPort, metadataPort int) []string {
	cpus, memory := c.CPUs, c.Memory
	if cpus == 0 {
		cpus = 1
	}
	if memory == 0 {
		memory = 1024
	}
	// The guest has an address in the metadata service's network. QEMU accepts
	// connections to the service and starts nc for each, which forwards it.
	netdev := "user,id=net,net=169.254.0.0/16,host=169.254.0.2,dhcpstart=169.254.0.15" +
		",hostfwd=tcp:127.0.0.1:" + strconv.Itoa(sshPort) + "-:22"
	if c.Metadata != nil {
		netdev += ",guestfwd=tcp:169.254.169.254:80-cmd:nc -N 127.0.0.1 " + strconv.Itoa(metadataPort)
	}
	serial := "stdio"
	if c.Interactive {
		serial = "mon:stdio"
	}
	p := c.platform()
	args := append(slices.Clone(p.machine),
		"-nodefaults", "-no-user-config", "-accel", "tcg", "-display", "none",
		"-smp", strconv.Itoa(cpus), "-m", strconv.Itoa(memory),
		"-serial", serial,
		"-device", "virtio-rng-pci",
	)
	if c.MemoryFile != "" {
		args = append(args, "-machine", "memory-backend=memory", "-object",
			fmt.Sprintf("memory-backend-file,id=memory,share=on,size=%dM,mem-path=%s", memory, quote(c.MemoryFile)))
	}
	if !c.NoNetwork {
		args = append(args, "-netdev", netdev,
			"-device", "virtio-net-pci,netdev=net,romfile=") // no ROM, so that it never boots from the network
	}
	if c.Firmware == UEFI {
		args = append(args,
			"-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+quote(p.code),
			"-drive", "if=pflash,unit=1,format=raw,snapshot=on,file="+quote(p.vars))
	}
	order := ",bootindex=0"
	if c.Kernel != "" {
		order = "" // the kernel boots first
	}
	if c.Disk != "" {
		args = append(args,
			"-drive", "if=none,id=disk,snapshot=on,format="+cmp.Or(c.DiskFormat, "raw")+",file="+quote(c.Disk),
			"-device", "nvme,drive=disk,serial=slipway"+order)
	}
	for i, file := range c.Data {
		id := "data" + strconv.Itoa(i)
		args = append(args,
			"-drive", "if=none,id="+id+",format=raw,discard=unmap,file="+quote(file),
			// Not NVMe: under load, requests to that of QEMU 7.2 can hang.
			"-device", "virtio-blk-pci,drive="+id)
	}
	for _, device := range c.Devices {
		args = append(args, "-device", device)
	}
	if c.Kernel != "" {
		args = append(args, "-kernel", c.Kernel, "-append", c.Cmdline)
	}
	if c.Initrd != "" {
		args = append(args, "-initrd", c.Initrd)
	}
	if c.CD != "" {
		args = append(args,
			"-drive", "if=none,id=cd,media=cdrom,format=raw,readonly=on,file="+quote(c.CD),
			"-device", "virtio-scsi-pci", "-device", "scsi-cd,drive=cd,bootindex=1")
	}
	return args
}

// quote returns text for one of QEMU's comma-separated options.
func quote(text string) string { return strings.ReplaceAll(text, ",", ",,") }

// spawn starts a command that the kernel kills when this process exits for any
// reason. The channel receives the result of cmd.Wait.
func spawn(cmd *exec.Cmd) (<-chan error, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error), make(chan error, 1)
	go func() {
		// The kernel sends the signal when the thread that forked exits, so
		// this goroutine keeps its thread.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	return ended, <-started
}

// freePort returns a TCP port of 127.0.0.1 that is free at the moment.
func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// tailOf returns the last lines of a log, for an error message.
func tailOf(file string, lines int) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return lastLines(string(data), lines)
}
