package vm

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/vm/cloud"
)

// A platform is how QEMU emulates a machine of an architecture.
type platform struct {
	qemu    string
	target  string // QEMU's name of the architecture
	machine string // type of machine
	cpu     string // that TCG emulates; "": QEMU's default
	tpm     string // device
	microVM string // type of machine without PCI
	resets  bool   // whether a microVM ends with a reset
}

var platforms = map[string]platform{
	"amd64": {
		qemu: "qemu-system-x86_64", target: "x86_64",
		// Without a display, SeaBIOS and GRUB print on the serial port, which
		// is logged.
		machine: "q35,graphics=off", tpm: "tpm-crb",
		// With ACPI, the kernel has no timer under TCG. Without, nothing can power
		// the machine off, so that it ends when its kernel resets it.
		microVM: "microvm,acpi=off,x-option-roms=off,rtc=on", resets: true,
	},
	"arm64": {
		qemu: "qemu-system-aarch64", target: "aarch64",
		machine: "virt", cpu: "cortex-a57", tpm: "tpm-tis-device",
		microVM: "virt", // its MMIO transports suffice
	},
}

// Consoles maps an architecture to the kernel argument that selects the first
// serial port as the console.
var Consoles = map[string]string{"amd64": "console=ttyS0", "arm64": "console=ttyAMA0"}

func (c *Config) architecture() string { return cmp.Or(c.Architecture, "amd64") }

func (c *Config) platform() platform { return platforms[c.architecture()] }

func (c *Config) check() error {
	p := c.platform()
	if p.qemu == "" {
		return fmt.Errorf("unknown architecture %q", c.Architecture)
	}
	if c.Disk == "" && c.Kernel == "" && c.CD == "" && len(c.Data) == 0 {
		return errors.New("a machine requires a disk, a CD or a kernel to boot")
	}
	files := []string{c.Disk, c.Kernel, c.Initrd, c.CD}
	for _, d := range c.Data {
		files = append(files, d.File)
	}
	for _, file := range files {
		if file == "" {
			continue
		}
		if _, err := os.Stat(file); err != nil {
			return fmt.Errorf("nothing to boot: %w", err)
		}
	}
	if c.MicroVM {
		switch {
		case c.Kernel == "":
			return errors.New("a microVM has no firmware: it requires a kernel to boot")
		case c.Firmware != "" || c.CD != "" || c.TPM != "":
			return errors.New("a microVM has no firmware, CD drive or TPM")
		}
	}
	if c.LogDir == "" {
		return errors.New("a machine requires a log directory")
	}
	switch c.Firmware {
	case "", BIOS, UEFI, SecureBoot, OwnKeys:
	default:
		return fmt.Errorf("unknown firmware %q: must be %s, %s, %s or %s", c.Firmware, BIOS, UEFI, SecureBoot, OwnKeys)
	}
	if c.Firmware == OwnKeys && (c.Keys == "" || c.Variables == "") {
		return errors.New("firmware that trusts other keys than Microsoft's requires these keys and a file for variables")
	}
	if c.architecture() != "amd64" && c.Firmware == BIOS && c.Kernel == "" {
		return fmt.Errorf("%s machines have no BIOS: use UEFI", c.architecture())
	}
	return c.Missing()
}

// sockets has where the helpers of a machine listen.
type sockets struct {
	ssh                    int // port of 127.0.0.1
	monitor, metadata, tpm string
}

// args returns QEMU's arguments, see
// https://www.qemu.org/docs/master/system/invocation.html.
func (c *Config) args(s sockets) ([]string, error) {
	p := c.platform()
	accelerator := cmp.Or(c.Accelerator, TCG)
	machine, cpu := p.machine, p.cpu
	if c.MicroVM {
		machine = p.microVM
	}
	if accelerator != TCG {
		cpu = "host"
		if c.architecture() == "arm64" {
			machine += ",gic-version=max" // QEMU's default is not on all hosts
		}
	}
	var firmware []string
	if c.Firmware.uefi() {
		f, err := findFirmware(c.architecture(), c.Firmware)
		if err != nil {
			return nil, err
		}
		if f.requires("requires-smm") {
			machine += ",smm=on"
		}
		firmware = f.args(c.Variables)
	}
	memory := strconv.Itoa(cmp.Or(c.Memory, 1024))
	args := []string{"-machine", machine}
	if cpu != "" {
		args = append(args, "-cpu", cpu)
	}
	args = append(args,
		"-nodefaults", "-no-user-config", "-accel", string(accelerator), "-display", "none",
		"-smp", strconv.Itoa(cmp.Or(c.CPUs, 1)), "-m", memory,
		"-serial", "stdio", "-monitor", "unix:"+quote(s.monitor)+",server=on,wait=off",
		"-device", c.virtio("rng"),
	)
	if c.MicroVM {
		args = append(args, "-global", "virtio-mmio.force-legacy=false")
	}
	if c.RTC != "" {
		args = append(args, "-rtc", "base="+c.RTC)
	}
	if c.MemoryFile != "" {
		args = append(args, "-machine", "memory-backend=memory",
			"-object", "memory-backend-file,id=memory,share=on,size="+memory+"M,mem-path="+quote(c.MemoryFile))
	}
	if c.BoardAsset != "" {
		args = append(args, "-smbios", "type=2,asset="+quote(c.BoardAsset))
	}
	args = append(args, firmware...)
	args = append(args, c.network(s)...)
	args = append(args, c.media()...)
	if c.TPM != "" {
		args = append(args, "-chardev", "socket,id=tpm,path="+quote(s.tpm),
			"-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", p.tpm+",tpmdev=tpm0")
	}
	return args, nil
}

// virtio returns QEMU's name of a virtio device.
func (c *Config) virtio(device string) string {
	if c.MicroVM {
		return "virtio-" + device + "-device" // MMIO
	}
	return "virtio-" + device + "-pci"
}

// network returns the arguments for the network interface. The guest has an
// address in the metadata service's network. QEMU accepts connections to the
// service and starts a relay for each, which forwards it.
func (c *Config) network(s sockets) []string {
	if c.NoNetwork {
		return nil
	}
	netdev := "user,id=net,net=169.254.0.0/16,host=169.254.0.2,dhcpstart=" + cloud.GuestIPv4 +
		",hostfwd=tcp:127.0.0.1:" + strconv.Itoa(s.ssh) + "-:22"
	for _, f := range c.Forwards {
		protocol := "tcp"
		if f.UDP {
			protocol = "udp"
		}
		netdev += fmt.Sprintf(",hostfwd=%s:%s:%d-:%d", protocol, f.Address, f.Port, f.GuestPort)
	}
	if c.metadata() != nil {
		netdev += ",guestfwd=tcp:" + cloud.Address + ":80-cmd:" + quote(relayCommand(s.metadata))
	}
	rom := ",romfile=" // no ROM, so that it never boots from the network
	if c.MicroVM {
		rom = ""
	}
	return []string{"-netdev", netdev, "-device", c.virtio("net") + ",netdev=net" + rom + ",mac=" + cloud.GuestMAC}
}

// system returns the device for the disk that boots: NVMe, as on EC2, where there
// is PCI.
func (c *Config) system() string {
	if c.MicroVM {
		return c.virtio("blk")
	}
	return "nvme"
}

// media returns the arguments for what boots, and for other disks.
func (c *Config) media() []string {
	var args []string
	order := ",bootindex=0"
	if c.Kernel != "" {
		order = "" // the kernel boots first
	}
	if c.Disk != "" {
		args = append(args,
			"-drive", "if=none,id=disk,snapshot=on,format="+cmp.Or(c.DiskFormat, "raw")+",file="+quote(c.Disk),
			"-device", c.system()+",drive=disk,serial=slipway"+order)
	}
	for i, d := range c.Data {
		id := "data" + strconv.Itoa(i)
		device := c.virtio("blk") + ",drive=" + id // not NVMe: under load, requests to that of QEMU 7.2 can hang
		if d.Serial != "" {
			device += ",serial=" + quote(d.Serial)
		}
		args = append(args, "-drive", "if=none,id="+id+",format=raw,discard=unmap,werror=report,file="+quote(d.File), "-device", device)
	}
	args = append(args, c.Arguments...)
	if c.Kernel != "" {
		cmdline := c.Cmdline
		if c.MicroVM && c.platform().resets {
			// Linux tries a triple fault last, after seconds, but a microVM has no
			// other reset (QEMU, "microvm virtual platform").
			cmdline = strings.TrimSpace(cmdline + " " + contract.PowerOffArg + "=" + contract.PowerOffReboot + " reboot=t")
			args = append(args, "-no-reboot")
		}
		args = append(args, "-kernel", c.Kernel, "-append", cmdline)
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

// qemuData returns the directories that can hold data of QEMU, such as
// share/qemu beside the program's bin.
func qemuData(program string) []string {
	dirs := []string{"/usr/share/qemu", "/usr/local/share/qemu"}
	if real, err := filepath.EvalSymlinks(program); err == nil {
		dirs = append(dirs, filepath.Join(filepath.Dir(filepath.Dir(real)), "share", "qemu"))
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}
