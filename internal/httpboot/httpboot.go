// Package httpboot serves machines over HTTP to UEFI firmware and to iPXE.
//
// UEFI HTTP boot (UEFI 2.10, section 24.7) downloads a unified kernel image, an
// ISO or a disk, and starts it; ISOs and disks become RAM disks. iPXE downloads
// a script, and the kernel and the initramfs that the script names. A machine in
// a file FILE has the paths
//
//	/FILE             for UEFI; disks in a container such as qcow2 have /FILE.img
//	/FILE.ipxe        script for iPXE
//	/FILE/kernel, /FILE/initrd.img
//
// and /boot.ipxe starts the only machine, or shows a menu.
package httpboot

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/exporter/iso9660"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/image"
)

// Media types that UEFI firmware recognizes.
const (
	typeProgram = "application/efi"
	typeISO     = "application/vnd.efi-iso"
	typeDisk    = "application/vnd.efi-img"
	typeText    = "text/plain; charset=utf-8"
	typeData    = "application/octet-stream"
)

// plainName matches the names of files that are served. They need no quotes in
// URLs and scripts.
var plainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]*$`)

// uefiTypes are the files that firmware can start, by the ends of their names.
var uefiTypes = map[string]string{".efi": typeProgram, ".iso": typeISO, ".img": typeDisk, ".raw": typeDisk}

// containers are the ends of the names of other disks.
var containers = []string{".qcow2", ".vhd", ".vmdk"}

// maxCmdline limits a kernel command line, in bytes.
const maxCmdline = 64 << 10

// A Machine can be booted over HTTP.
type Machine struct {
	Name string // of its file, or the common start of those of kernel+initrd
	UEFI string // path for UEFI, without the slash; "" if it has none

	contentType string     // of UEFI
	file        openedFile // for UEFI; nil if it has none
	boot        openedBoot
}

// What the functions return is valid until the closer is closed.
type (
	openedFile func() (sparse.Content, io.Closer, error)
	openedBoot func() (image.Boot, io.Closer, error)
)

// Folder returns the machines in the files of a folder.
func Folder(dir *os.Root) ([]Machine, error) {
	entries, err := fs.ReadDir(dir.FS(), ".")
	if err != nil {
		return nil, err
	}
	regular := map[string]bool{}
	for _, e := range entries {
		if e.Type().IsRegular() && plainName.MatchString(e.Name()) {
			regular[e.Name()] = true
		}
	}
	var machines []Machine
	parts := map[string]bool{} // of machines in several files
	for _, name := range slices.Sorted(maps.Keys(regular)) {
		prefix, found := strings.CutSuffix(name, format.KernelSuffix)
		if !found || prefix == "" {
			continue
		}
		parts[prefix+format.InitrdSuffix] = true
		separate := false // the root filesystem is not in the initramfs
		for _, suffix := range format.RootSuffixes() {
			if regular[prefix+suffix] && isRoot(dir, prefix+suffix) {
				parts[prefix+suffix], separate = true, true
			}
		}
		if !separate {
			machines = append(machines, Machine{Name: prefix, boot: func() (image.Boot, io.Closer, error) { return openParts(dir, prefix) }})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(regular)) {
		if !parts[name] {
			if m, ok := newMachine(name, func() (sparse.Content, io.Closer, error) { return openFile(dir, name) }); ok {
				machines = append(machines, m)
			}
		}
	}
	return machines, nil
}

// isRoot reports whether a file with the suffix of a root filesystem is one. An
// ISO beside a kernel can also be a CD of the same machine, with a kernel on it.
func isRoot(dir *os.Root, name string) bool {
	if path.Ext(name) != ".iso" {
		return true
	}
	c, closer, err := openFile(dir, name)
	if err != nil {
		return true
	}
	defer closer.Close()
	entries, err := iso9660.Read(c, c.Size)
	if err != nil {
		return true
	}
	_, err = tree.Find(entries, "boot/kernel")
	return err != nil
}

// File returns the machine in one file, which open opens.
func File(name string, open func() (sparse.Content, io.Closer, error)) (Machine, error) {
	if !plainName.MatchString(name) {
		return Machine{}, fmt.Errorf("%q cannot be part of a URL: rename the file", name)
	}
	m, ok := newMachine(name, open)
	if !ok {
		return Machine{}, fmt.Errorf("%q is not a file that boots over HTTP: use a UKI, an ISO or a disk", name)
	}
	return m, nil
}

// newMachine returns the machine in a file if the name of the file shows that
// it may have one.
func newMachine(name string, open openedFile) (Machine, bool) {
	m := Machine{Name: name, UEFI: name, contentType: uefiTypes[path.Ext(name)], file: open}
	openImage := func() (*image.Image, io.Closer, error) {
		c, closer, err := open()
		if err != nil {
			return nil, nil, err
		}
		i, err := image.OpenBoot(name, c, c.Size)
		if err != nil {
			return nil, nil, errors.Join(err, closer.Close())
		}
		return i, closers{i, closer}, nil
	}
	if slices.Contains(containers, path.Ext(name)) {
		m.UEFI, m.contentType = name+".img", typeDisk
		m.file = func() (sparse.Content, io.Closer, error) {
			i, closer, err := openImage()
			if err != nil {
				return sparse.Content{}, nil, err
			}
			return sparse.FromReader(i.Blocks(), i.Size), closer, nil
		}
	}
	m.boot = func() (image.Boot, io.Closer, error) {
		i, closer, err := openImage()
		if err != nil {
			return image.Boot{}, nil, err
		}
		b, err := i.Boot()
		if err != nil {
			return b, nil, errors.Join(fmt.Errorf("%s: %w", name, err), closer.Close())
		}
		return b, closer, nil
	}
	return m, m.contentType != ""
}

type closers []io.Closer

func (all closers) Close() error {
	var errs []error
	for _, c := range all {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// openFile opens a regular file.
func openFile(dir *os.Root, name string) (sparse.Content, io.Closer, error) {
	info, err := dir.Lstat(name) // opening a pipe would block
	if err != nil {
		return sparse.Content{}, nil, err
	}
	if !info.Mode().IsRegular() {
		return sparse.Content{}, nil, fmt.Errorf("%q is not a regular file", name)
	}
	f, err := dir.Open(name)
	if err != nil {
		return sparse.Content{}, nil, err
	}
	if info, err = f.Stat(); err != nil {
		return sparse.Content{}, nil, errors.Join(err, f.Close())
	}
	return sparse.FromReader(f, info.Size()), f, nil
}

// openParts opens the files of kernel+initrd.
func openParts(dir *os.Root, prefix string) (b image.Boot, closer io.Closer, err error) {
	var opened closers
	defer func() {
		if err != nil {
			opened.Close()
		}
	}()
	read := func(suffix string) (sparse.Content, error) {
		c, closer, err := openFile(dir, prefix+suffix)
		if err == nil {
			opened = append(opened, closer)
		}
		return c, err
	}
	if b.Kernel, err = read(format.KernelSuffix); err != nil {
		return b, nil, err
	}
	if b.Initrd, err = read(format.InitrdSuffix); err != nil {
		return b, nil, err
	}
	cmdline, err := read(format.CmdlineSuffix)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return b, nil, err
	}
	text := make([]byte, min(cmdline.Size, maxCmdline))
	if _, err := cmdline.ReadAt(text, 0); err != nil && !errors.Is(err, io.EOF) {
		return b, nil, err
	}
	b.Cmdline = strings.TrimRight(string(text), "\n")
	return b, opened, nil
}

// script returns the script that boots the machine with iPXE. Names are relative
// to the URL of the script.
func (m Machine) script(cmdline string) (string, error) {
	// iPXE expands settings and splits the line at spaces. There is no escape.
	words := strings.Fields(cmdline)
	if strings.Contains(cmdline, "${") || slices.Contains(words, "&&") || slices.Contains(words, "||") ||
		strings.Contains(cmdline, `"`) && strings.Join(words, " ") != strings.TrimSpace(cmdline) || strings.ContainsAny(cmdline, "\n\r") {
		return "", fmt.Errorf("iPXE cannot pass on the command line %q: it must have no ${, &&, || and no repeated spaces in quotes", cmdline)
	}
	return fmt.Sprintf("#!ipxe\nkernel %[1]s/kernel %s\ninitrd --name initrd.img %[1]s/initrd.img\nboot\n",
		m.Name, strings.Join(append([]string{"initrd=initrd.img"}, words...), " ")), nil
}

// menu returns a script that starts the only machine, or lets the user choose.
func menu(machines []Machine) string {
	if len(machines) == 1 {
		return "#!ipxe\nchain " + machines[0].Name + ".ipxe\n"
	}
	var b strings.Builder
	b.WriteString("#!ipxe\nmenu Choose a machine\n")
	for _, m := range machines {
		fmt.Fprintf(&b, "item %s %[1]s\n", m.Name)
	}
	b.WriteString("choose machine && chain ${machine}.ipxe\n")
	return b.String()
}
