package vm

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// Packages has the names of a package in the distributions.
type Packages struct{ Debian, Fedora, Arch, Homebrew string }

// A MissingError is the error for something that must be installed.
type MissingError struct {
	What     string
	Packages Packages
}

func (e *MissingError) Error() string {
	return e.What + " is not installed: " + e.Packages.install(osRelease())
}

var (
	qemuPackages = map[string]Packages{
		"amd64": {"qemu-system-x86", "qemu-system-x86-core", "qemu-system-x86", "qemu"},
		"arm64": {"qemu-system-arm", "qemu-system-aarch64-core", "qemu-system-aarch64", "qemu"},
	}
	firmwarePackages = map[string]Packages{
		"amd64": {"ovmf", "edk2-ovmf", "edk2-ovmf", "qemu"},
		"arm64": {"qemu-efi-aarch64", "edk2-aarch64", "edk2-aarch64", "qemu"},
	}
	swtpmPackages = Packages{"swtpm", "swtpm", "swtpm", "swtpm"}
)

// install returns the command that installs the package on the system that an
// os-release file describes, or all its names.
func (p Packages) install(release string) string {
	if runtime.GOOS == "darwin" {
		return "brew install " + p.Homebrew
	}
	var ids []string
	for line := range strings.Lines(release) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if key == "ID" || key == "ID_LIKE" {
			ids = append(ids, strings.Fields(strings.Trim(value, `"'`))...)
		}
	}
	for _, id := range ids {
		switch id {
		case "debian", "ubuntu":
			return "apt-get install " + p.Debian
		case "fedora", "rhel", "centos":
			return "dnf install " + p.Fedora
		case "arch":
			return "pacman -S " + p.Arch
		}
	}
	return fmt.Sprintf("install %s (Debian), %s (Fedora), %s (Arch) or %s (Homebrew)", p.Debian, p.Fedora, p.Arch, p.Homebrew)
}

func osRelease() string {
	text, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return ""
	}
	return string(text)
}

// Missing returns a MissingError if the machine requires something that is not
// installed.
func (c *Config) Missing() error {
	if _, err := exec.LookPath(c.platform().qemu); err != nil {
		return &MissingError{What: c.platform().qemu, Packages: qemuPackages[c.architecture()]}
	}
	if c.Firmware.uefi() {
		if _, err := findFirmware(c.architecture(), c.Firmware); err != nil {
			return err
		}
	}
	if _, err := exec.LookPath("swtpm"); err != nil && c.TPM != "" {
		return &MissingError{What: "swtpm", Packages: swtpmPackages}
	}
	return nil
}
