// Package vm boots a machine in QEMU the way EC2 boots it, for tests and the demo: a disk on NVMe under SeaBIOS or
// OVMF, a virtio network with EC2's metadata service at 169.254.169.254, a serial console, and ssh to get in.
//
// QEMU emulates the processor (TCG), so that it runs wherever the tests run; no root is needed.
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

// Firmware is what starts the disk.
type Firmware string

// The firmwares of EC2's boot modes.
const (
	BIOS Firmware = "bios" // SeaBIOS, which comes with QEMU
	UEFI Firmware = "uefi" // OVMF, of the Debian package ovmf
)

// platform is what emulates a machine of an architecture.
type platform struct {
	qemu, qemuPackage string
	machine           []string // arguments
	code, vars        string   // of UEFI
	firmwarePackage   string
}

var platforms = map[string]platform{
	"amd64": {
		qemu: "qemu-system-x86_64", qemuPackage: "qemu-system-x86",
		// Without a display SeaBIOS and GRUB talk on the serial port, and land in the log.
		machine: []string{"-machine", "q35,graphics=off"},
		code:    "/usr/share/OVMF/OVMF_CODE_4M.fd", vars: "/usr/share/OVMF/OVMF_VARS_4M.fd", firmwarePackage: "ovmf",
	},
	"arm64": {
		qemu: "qemu-system-aarch64", qemuPackage: "qemu-system-arm",
		machine: []string{"-machine", "virt", "-cpu", "cortex-a57"},
		code:    "/usr/share/AAVMF/AAVMF_CODE.fd", vars: "/usr/share/AAVMF/AAVMF_VARS.fd", firmwarePackage: "qemu-efi-aarch64",
	},
}

// Consoles are the kernel arguments that name the first serial port, which Config.Console and the log get, by architecture.
var Consoles = map[string]string{"amd64": "console=ttyS0", "arm64": "console=ttyAMA0"}

const (
	// grace is how long QEMU has to end by itself when the machine is killed.
	grace = 5 * time.Second
)

// Config is the hardware, and what boots on it: Disk, or Kernel with Initrd and Cmdline, or both, when the kernel
// boots and the disk is only there.
type Config struct {
	Architecture string   // as GOARCH, default amd64
	Firmware     Firmware // default BIOS
	Disk         string   // disk image; the guest's writes are thrown away, the file never changes
	DiskFormat   string   // as QEMU calls it, default raw
	Data         []string // more disks, on virtio: raw images, which keep what the guest writes
	Kernel       string
	Initrd       string
	Cmdline      string

	CPUs   int // default 1: with more, QEMU 7.2 can hang where the kernel patches code that another CPU runs
	Memory int // MiB, default 1024

	// MemoryFile, if given, is made and holds the memory of the machine. Its blocks on disk are what the machine has ever used of it.
	MemoryFile string

	Metadata  *Metadata // nil: nothing answers at 169.254.169.254
	NoNetwork bool      // no network card at all

	CD string // ISO image in a CD drive on virtio; it boots if there is nothing else

	LogDir      string    // gets console.log, qemu.log, metadata.log; made if it is missing
	Console     io.Writer // gets the serial console as well, as it comes; may be nil
	Interactive bool      // the serial console reads this process's terminal; ctrl-a x ends QEMU
}

// Machine is a running machine. Its times count from power-on.
type Machine struct {
	SSHPort int // on 127.0.0.1, leads to the guest's port 22

	logDir  string
	control string // folder of the monitor's socket
	console *console
	serial  io.Writer // input of the serial console; nil if that is the terminal
	cancel  context.CancelFunc
	qemu    *os.Process
	done    chan struct{} // closed when QEMU and the metadata service have ended
	err     error         // how QEMU ended; valid after done
}

// Start powers a machine on. It runs until its guest powers off, Kill, the end of ctx or of this process, however that
// ends. Whoever starts a machine calls Kill in the end: that also waits until nothing of it is left.
func Start(ctx context.Context, config Config) (*Machine, error) {
	if err := config.check(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(config.LogDir, 0o755); err != nil {
		return nil, fmt.Errorf("make the log directory: %w", err)
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
	// A file, not a pipe: the helpers that QEMU starts for guestfwd share its stderr and may outlive it by a moment.
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

	// Not in logDir: the path of a socket has at most 107 bytes.
	if m.control, err = os.MkdirTemp("", "vm"); err != nil {
		log.Close()
		return fmt.Errorf("make a folder for the monitor: %w", err)
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

// Wait waits until the machine has powered itself off. Any other end is an error, and so is ctx ending first. A machine
// that reboots goes on running.
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

// Type types text on the serial console of a machine that is not Interactive.
func (m *Machine) Type(text string) error {
	if _, err := io.WriteString(m.serial, text); err != nil {
		return fmt.Errorf("serial console: %w", err)
	}
	return nil
}

// Monitor gives QEMU's monitor a command: "system_powerdown" presses the power button, "sendkey ctrl-alt-delete" these keys.
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

// CPUTime is the processor time that QEMU has used for the running machine. Other than time, it hardly depends on what else this computer does.
func (m *Machine) CPUTime() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.qemu.Pid))
	if err != nil {
		return 0, fmt.Errorf("QEMU's processor time: %w", err)
	}
	// proc_pid_stat(5): utime and stime are fields 14 and 15, in ticks of 10 ms; the name in field 2 may have blanks.
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

// Kill cuts the power and waits until QEMU is gone. After the machine's end it does nothing.
func (m *Machine) Kill() {
	m.cancel()
	<-m.done
}

var (
	errOff    = errors.New("the machine has powered itself off")
	errKilled = errors.New("the machine was killed")
	errPanic  = errors.New("its kernel panicked")
)

// over tells why nothing more can be expected of the machine; nil while it runs.
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

// failure is an error about the machine that says where to look.
func (m *Machine) failure(what string, why error) error {
	return fmt.Errorf("%s, %.0f s after power-on: %w; its console is in %s", what,
		m.console.now().Seconds(), why, filepath.Join(m.logDir, "console.log"))
}

func (c *Config) platform() platform { return platforms[cmp.Or(c.Architecture, "amd64")] }

func (c *Config) check() error {
	p := c.platform()
	if p.qemu == "" {
		return fmt.Errorf("unknown architecture %q", c.Architecture)
	}
	if c.Disk == "" && c.Kernel == "" && c.CD == "" && len(c.Data) == 0 {
		return errors.New("a machine needs a disk, a CD or a kernel to boot")
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
		return errors.New("a machine needs a log directory")
	}
	switch c.Firmware {
	case "", BIOS:
	case UEFI:
		if _, err := os.Stat(p.code); err != nil {
			return fmt.Errorf("UEFI firmware: %w: apt-get install %s", err, p.firmwarePackage)
		}
	default:
		return fmt.Errorf("unknown firmware %q: known are %s and %s", c.Firmware, BIOS, UEFI)
	}
	if err := installed(p.qemu, p.qemuPackage); err != nil {
		return err
	}
	if c.Metadata != nil {
		return installed("nc", "netcat-openbsd")
	}
	return nil
}

// installed is an error that names the Debian package when there is no such program.
func installed(program, pkg string) error {
	if _, err := exec.LookPath(program); err != nil {
		return fmt.Errorf("%s is not installed: apt-get install %s", program, pkg)
	}
	return nil
}

// args are QEMU's. https://www.qemu.org/docs/master/system/invocation.html
func (c *Config) args(sshPort, metadataPort int) []string {
	cpus, memory := c.CPUs, c.Memory
	if cpus == 0 {
		cpus = 1
	}
	if memory == 0 {
		memory = 1024
	}
	// EC2's addresses: the guest is on the metadata service's own network, QEMU answers there and hands the
	// connection to a program.
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
			"-device", "virtio-net-pci,netdev=net,romfile=") // no ROM: never boots from the network
	}
	if c.Firmware == UEFI {
		args = append(args,
			"-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+quote(p.code),
			"-drive", "if=pflash,unit=1,format=raw,snapshot=on,file="+quote(p.vars))
	}
	order := ",bootindex=0"
	if c.Kernel != "" {
		order = "" // is that of the kernel
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
			"-device", "virtio-blk-pci,drive="+id) // under load, requests to the NVMe of QEMU 7.2 were seen to wait for ever
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

// quote is text inside one of QEMU's comma-separated options.
func quote(text string) string { return strings.ReplaceAll(text, ",", ",,") }

// spawn starts a command that the kernel kills when this process dies, whatever it dies of. The command's end comes on
// the channel.
func spawn(cmd *exec.Cmd) (<-chan error, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error), make(chan error, 1)
	go func() {
		// The signal comes at the death of the thread that forked, so this goroutine keeps its thread.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	return ended, <-started
}

// freePort is a TCP port of 127.0.0.1 that nobody listens on at this moment.
func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// tailOf is the last lines of a log, for an error message.
func tailOf(file string, lines int) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return lastLines(string(data), lines)
}
