package vm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/slipway-build/slipway/exporter/efivars"
	"github.com/slipway-build/slipway/internal/bootkeys"
)

// A Firmware loads the boot loader from the disk.
type Firmware string

// The firmware of EC2's boot modes. SecureBoot is UEFI that starts only what
// Microsoft's keys have signed, and OwnKeys only what those of Config.Keys have.
const (
	BIOS       Firmware = "bios" // SeaBIOS, which comes with QEMU
	UEFI       Firmware = "uefi"
	SecureBoot Firmware = "secure-boot"
	OwnKeys    Firmware = "own-keys"
)

func (f Firmware) uefi() bool { return f == UEFI || f == SecureBoot || f == OwnKeys }

// A firmware is a firmware descriptor of QEMU, which each distribution installs
// for its builds of EDK II. See docs/interop/firmware.json of QEMU.
type firmware struct {
	InterfaceTypes []string `json:"interface-types"`
	Mapping        struct {
		Device     string
		Mode       string       // "split" by default
		Executable firmwareFile // the program
		Variables  firmwareFile `json:"nvram-template"`
	}
	Targets []struct {
		Architecture string
		Machines     []string
	}
	Features []string
}

type firmwareFile struct{ Filename, Format string }

func (f *firmware) requires(feature string) bool { return slices.Contains(f.Features, feature) }

// fits reports whether the firmware is of a kind, for an architecture.
func (f *firmware) fits(target, machine string, kind Firmware) bool {
	secure := kind != UEFI
	if !slices.Contains(f.InterfaceTypes, "uefi") || f.Mapping.Device != "flash" ||
		f.Mapping.Mode != "" && f.Mapping.Mode != "split" ||
		f.Mapping.Variables.Filename == "" {
		return false
	}
	// Without Secure Boot, a variant without SMM is faster.
	if f.requires("secure-boot") != secure || f.requires("enrolled-keys") != (kind == SecureBoot) || !secure && f.requires("requires-smm") {
		return false
	}
	for _, t := range f.Targets {
		if t.Architecture != target {
			continue
		}
		for _, pattern := range t.Machines {
			if ok, err := filepath.Match(pattern, machine); ok && err == nil {
				return true
			}
		}
	}
	return false
}

// firmwareMachines are names of machine types, as descriptors match them.
var firmwareMachines = map[string]string{"amd64": "pc-q35-7.2", "arm64": "virt-7.2"}

// firmwareDirs returns the directories of descriptors. Those in an earlier
// directory hide those of the same name in later ones.
var firmwareDirs = func(program string) []string {
	dirs := []string{"/etc/qemu/firmware"}
	for _, dir := range qemuData(program) {
		dirs = append(dirs, filepath.Join(dir, "firmware"))
	}
	return dirs
}

// findFirmware returns the preferred firmware that is installed.
func findFirmware(architecture string, kind Firmware) (*firmware, error) {
	p := platforms[architecture]
	program, _ := exec.LookPath(p.qemu)
	paths := map[string]string{}
	for _, dir := range firmwareDirs(program) {
		files, err := filepath.Glob(filepath.Join(dir, "*.json"))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			if _, hidden := paths[filepath.Base(file)]; !hidden {
				paths[filepath.Base(file)] = file
			}
		}
	}
	names := make([]string, 0, len(paths))
	for name := range paths {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		data, err := os.ReadFile(paths[name])
		var f firmware
		if err != nil || json.Unmarshal(data, &f) != nil || !f.fits(p.target, firmwareMachines[architecture], kind) {
			continue
		}
		if exists(f.Mapping.Executable.Filename) && exists(f.Mapping.Variables.Filename) {
			return &f, nil
		}
	}
	what := "UEFI firmware"
	switch kind {
	case SecureBoot:
		what = "UEFI firmware with Secure Boot and Microsoft's keys"
	case OwnKeys:
		what = "UEFI firmware with Secure Boot and without keys"
	}
	return nil, &MissingError{What: what + " for " + architecture, Packages: firmwarePackages[architecture]}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// args returns QEMU's arguments. With a file for variables, the guest's changes
// to them are kept.
func (f *firmware) args(variables string) []string {
	format := func(file firmwareFile) string {
		if file.Format == "" {
			return "raw"
		}
		return file.Format
	}
	code, vars := f.Mapping.Executable, f.Mapping.Variables
	args := []string{"-drive", "if=pflash,unit=0,format=" + format(code) + ",readonly=on,file=" + quote(code.Filename)}
	if variables == "" {
		args = append(args, "-drive", "if=pflash,unit=1,snapshot=on,format="+format(vars)+",file="+quote(vars.Filename))
	} else {
		args = append(args, "-drive", "if=pflash,unit=1,format="+format(vars)+",file="+quote(variables))
	}
	if f.requires("requires-smm") { // the guest's kernel must not write the variables itself
		args = append(args, "-global", "driver=cfi.pflash01,property=secure,value=on", "-global", "ICH9-LPC.disable_s3=1")
	}
	return args
}

// createVariables creates the file for the variables of UEFI unless it exists.
func (c *Config) createVariables() error {
	if c.Variables == "" || !c.Firmware.uefi() {
		return nil
	}
	f, err := findFirmware(c.architecture(), c.Firmware)
	if err != nil {
		return err
	}
	variables, err := os.ReadFile(f.Mapping.Variables.Filename)
	if err == nil && c.Firmware == OwnKeys {
		variables, err = c.enroll(variables)
	}
	if err != nil {
		return fmt.Errorf("variables of UEFI: %w", err)
	}
	to, err := os.OpenFile(c.Variables, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("variables of UEFI: %w", err)
	}
	_, err = to.Write(variables)
	if err = errors.Join(err, to.Close()); err != nil {
		os.Remove(c.Variables)
		return fmt.Errorf("variables of UEFI: %w", err)
	}
	return nil
}

// enroll adds the keys to a variable store without keys.
func (c *Config) enroll(store []byte) ([]byte, error) {
	keys, err := bootkeys.Read(c.Keys)
	if err != nil {
		return nil, err
	}
	return efivars.AddToStore(store, append(keys.Variables(), efivars.SecureBootEnable())...)
}

// HasUEFI reports whether UEFI firmware for an architecture is installed.
func HasUEFI(architecture string) bool {
	_, err := findFirmware(architecture, UEFI)
	return err == nil
}
