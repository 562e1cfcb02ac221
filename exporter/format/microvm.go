package format

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/kernel"
	"github.com/slipway-build/slipway/internal/kernel/cmdline"
)

// Suffixes of the files that hypervisors without firmware take.
const (
	VMLinuxSuffix         = "-vmlinux"
	FirecrackerSuffix     = "-firecracker.json"
	CloudHypervisorSuffix = "-cloud-hypervisor.sh"
)

func init() {
	const files = "uncompressed kernel, %s and command line, with a configuration of Firecracker and a script for Cloud Hypervisor"
	suffixes := []string{VMLinuxSuffix, InitrdSuffix, CmdlineSuffix, FirecrackerSuffix, CloudHypervisorSuffix}
	register(
		Format{
			Name:        "microvm",
			Description: fmt.Sprintf(files, "initramfs"),
			Suffixes:    suffixes,
			Segments:    segment.CPIO,
			writer:      microVMWriter{},
		},
		Format{
			Name:        "microvm+" + erofsRoot.kind,
			Description: fmt.Sprintf(files, "root filesystem as "+erofsRoot.name+", initramfs if the kernel needs modules for it,"),
			Suffixes:    append(slices.Clone(suffixes), erofsRoot.suffix()),
			Segments:    segment.Tar,
			writer:      microVMRootWriter{erofsRoot},
		},
	)
}

// microVM is what a hypervisor boots.
type microVM struct {
	initrd []sparse.Content
	root   string // name of the root filesystem; empty for one in the initramfs
}

type microVMWriter struct{}

func (microVMWriter) write(j *job) error {
	initrd, err := j.initrd("") // a guest cannot load microcode
	if err != nil {
		return err
	}
	return j.writeMicroVM(microVM{initrd: initrd})
}

type microVMRootWriter struct{ fs rootFS }

func (w microVMRootWriter) write(j *job) error {
	entries, err := j.tree(false)
	if err != nil {
		return err
	}
	entries = w.fs.prepare(entries, j.warn)
	j.in.Ucode = "" // a guest cannot load microcode
	initrd, err := j.startup(entries, w.fs)
	if err != nil {
		return err
	}
	suffix := j.format.Suffixes[len(j.format.Suffixes)-1]
	if err := j.writeMicroVM(microVM{initrd, j.in.Name + suffix}); err != nil {
		return err
	}
	return j.create(suffix, func(f *os.File) error { return w.fs.encoder.encodeRoot(f, entries, j) })
}

// writeMicroVM writes everything but the root filesystem.
func (j *job) writeMicroVM(m microVM) error {
	if j.in.Kernel == "" {
		return errors.New("a microVM needs a kernel: set kernel.image in the machine")
	}
	k, err := j.opened.Open(j.in.Kernel)
	if err != nil {
		return err
	}
	unpack := func(f *os.File) error {
		if err := kernel.Unpack(f, k, k.Size); !errors.Is(err, kernel.ErrFormat) {
			return err
		}
		return k.WriteFile(f) // the hypervisor may know it
	}
	if err := j.create(VMLinuxSuffix, unpack); err != nil {
		return err
	}
	size, err := os.Stat(j.files[len(j.files)-1])
	if err != nil {
		return err
	}
	initrd := sparse.Concat(m.initrd...)
	c := guestConfig{
		kernel:  j.in.Name + VMLinuxSuffix,
		root:    m.root,
		cmdline: j.in.Cmdline,
		memory:  guestMemory(size.Size(), initrd.Size),
	}
	if initrd.Size > 0 {
		c.initrd = j.in.Name + InitrdSuffix
		if err := j.create(InitrdSuffix, func(f *os.File) error { return initrd.WriteFile(f) }); err != nil {
			return err
		}
	}
	if err := j.create(CmdlineSuffix, func(f *os.File) error { return text(f, c.cmdline) }); err != nil {
		return err
	}
	firecracker, err := c.firecracker()
	if err != nil {
		return err
	}
	if err := j.create(FirecrackerSuffix, func(f *os.File) error { return text(f, firecracker) }); err != nil {
		return err
	}
	return j.create(CloudHypervisorSuffix, func(f *os.File) error { return text(f, c.cloudHypervisor(j.in.Architecture)) })
}

func text(f *os.File, s string) error {
	_, err := f.WriteString(s)
	return err
}

// guestMemory returns a size of memory in MiB that a guest boots with, for the
// sizes of its kernel and of its compressed initramfs in bytes. The kernel
// unpacks the initramfs, which is compressed to a third or a quarter, into half of
// the memory.
func guestMemory(kernel, initrd int64) int64 {
	const step, least = 128, 256
	return max(least, sparse.RoundUp(kernel+8*initrd, step<<20)>>20)
}

// guestConfig is what configurations of hypervisors consist of. The names of
// files are relative to the folder of the output.
type guestConfig struct {
	kernel, initrd, root string // names of files; initrd and root are optional
	cmdline              string
	memory               int64 // MiB
}

// firecrackerConfig is the argument of --config-file. Its keys are those of
// FullVmConfiguration in src/firecracker/swagger/firecracker.yaml of Firecracker.
type firecrackerConfig struct {
	BootSource struct {
		Kernel string `json:"kernel_image_path"`
		Initrd string `json:"initrd_path,omitempty"`
		Args   string `json:"boot_args"`
	} `json:"boot-source"`
	Machine struct {
		CPUs   int   `json:"vcpu_count"`
		Memory int64 `json:"mem_size_mib"`
	} `json:"machine-config"`
	Drives []firecrackerDrive `json:"drives"`
}

type firecrackerDrive struct {
	ID       string `json:"drive_id"`
	Path     string `json:"path_on_host"`
	Root     bool   `json:"is_root_device"`
	ReadOnly bool   `json:"is_read_only"`
}

// firecrackerArgs are the kernel arguments that Firecracker's guide recommends:
// there is no PCI, and only a reset ends Firecracker, so that the init resets the
// machine instead of powering it off.
const firecrackerArgs = "console=ttyS0 reboot=k panic=1 pci=off " + contract.PowerOffArg + "=" + contract.PowerOffReboot

// firecracker returns the configuration of Firecracker. With a root device,
// Firecracker adds root= itself.
func (c guestConfig) firecracker() (string, error) {
	var f firecrackerConfig
	f.BootSource.Kernel, f.BootSource.Initrd, f.BootSource.Args = c.kernel, c.initrd, addArgs(c.cmdline, firecrackerArgs)
	f.Machine.CPUs, f.Machine.Memory = 1, c.memory
	f.Drives = []firecrackerDrive{}
	if c.root != "" {
		f.Drives = append(f.Drives, firecrackerDrive{ID: "root", Path: c.root, Root: true, ReadOnly: true})
	}
	encoded, err := json.MarshalIndent(f, "", "  ")
	return string(encoded) + "\n", err
}

// addArgs returns a command line with those arguments of added whose keys it does
// not have. They precede the others, because the kernel ignores what follows "--".
func addArgs(line, added string) string {
	args := cmdline.Parse(line)
	var words []string
	for _, a := range cmdline.Parse(added) {
		if _, ok := cmdline.Lookup(args, a.Key); !ok {
			words = append(words, a.String())
		}
	}
	if line != "" {
		words = append(words, line)
	}
	return strings.Join(words, " ")
}

// cloudHypervisor returns a script that starts Cloud Hypervisor with the machine
// and with the arguments of the script.
func (c guestConfig) cloudHypervisor(architecture string) string {
	console := map[string]string{"amd64": "ttyS0", "arm64": "ttyAMA0"}[architecture]
	line := addArgs(c.cmdline, "console="+console)
	words := []string{"--cpus boot=1", fmt.Sprintf("--memory size=%dM", c.memory), "--kernel " + shellQuote(c.kernel)}
	if c.initrd != "" {
		words = append(words, "--initramfs "+shellQuote(c.initrd))
	}
	if c.root != "" {
		words = append(words, "--disk "+shellQuote("path="+c.root+",readonly=on"))
		line = addArgs(line, "root=/dev/vda")
	}
	words = append(words, "--cmdline "+shellQuote(line), "--serial tty", "--console off")
	return "#!/bin/sh\n" +
		"# Starts the machine in Cloud Hypervisor. Arguments are passed on, for example\n" +
		"# --net tap=tap0.\n" +
		"cd \"$(dirname \"$0\")\" || exit\n" +
		"exec cloud-hypervisor " + strings.Join(words, " \\\n  ") + " \"$@\"\n"
}

// shellQuote quotes text for sh(1).
func shellQuote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
