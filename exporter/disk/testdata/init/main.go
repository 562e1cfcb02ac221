// Command init is the init of the machines that the boot tests start. It reports the
// kernel's command line, the files in /data and what the firmware measured, and
// powers off. With an argument, it
// lists the files in that directory instead.
package main

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Report is what the tests read from the console.
type Report struct {
	Cmdline string
	Root    string // mode and owner of /
	Files   []string
	Error   string

	SecureBoot bool              // the firmware verifies signatures
	Lockdown   string            // of the kernel
	PCRs       map[string]string // of the TPM, by bank and number: "sha256/11"
	EventLog   []byte            // of the firmware (TCG PC Client Platform Firmware Profile)
}

func main() {
	if len(os.Args) > 1 && os.Getpid() != 1 {
		files, err := list(os.Args[1])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if err := json.NewEncoder(os.Stdout).Encode(files); err != nil {
			os.Exit(1)
		}
		return
	}
	report, err := inspect()
	if err != nil {
		report.Error = err.Error()
	}
	text, _ := json.Marshal(report)
	fmt.Printf("\nREPORT %s\n", text)
	syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
}

func inspect() (Report, error) {
	var r Report
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return r, fmt.Errorf("mount /proc: %w", err)
	}
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return r, err
	}
	r.Cmdline = string(cmdline)
	var st syscall.Stat_t
	if err := syscall.Lstat("/", &st); err != nil {
		return r, err
	}
	r.Root = fmt.Sprintf("%o %d:%d", st.Mode, st.Uid, st.Gid)
	if r.Files, err = list("/data"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	return r, r.inspectTrust()
}

// inspectTrust reads what Secure Boot, the kernel's lockdown and the TPM report.
// Under BIOS there are none.
func (r *Report) inspectTrust() error {
	for _, m := range []struct{ dir, kind string }{
		{"/sys", "sysfs"}, {"/sys/kernel/security", "securityfs"},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount(m.kind, m.dir, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	// The EFI stub of the kernel writes 3 if Secure Boot is on (Linux,
	// arch/x86/include/uapi/asm/bootparam.h and include/linux/efi.h).
	const secureBootAt, enabled = 0x1ec, 3
	if params, err := os.ReadFile("/sys/kernel/boot_params/data"); err == nil && len(params) > secureBootAt {
		r.SecureBoot = params[secureBootAt] == enabled
	}
	if lockdown, err := os.ReadFile("/sys/kernel/security/lockdown"); err == nil {
		r.Lockdown = strings.TrimSpace(string(lockdown))
	}
	var err error
	if r.EventLog, err = os.ReadFile("/sys/kernel/security/tpm0/binary_bios_measurements"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	files, err := filepath.Glob("/sys/class/tpm/tpm0/pcr-*/*")
	if err != nil {
		return err
	}
	r.PCRs = map[string]string{}
	for _, file := range files {
		value, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		bank := strings.TrimPrefix(filepath.Base(filepath.Dir(file)), "pcr-")
		r.PCRs[bank+"/"+filepath.Base(file)] = strings.ToLower(strings.TrimSpace(string(value)))
	}
	return nil
}

// list describes all files in dir, one per line.
func list(dir string) ([]string, error) {
	var lines []string
	err := filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(name, &st); err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		line := fmt.Sprintf("%s: mode %o owner %d:%d device %d", rel, st.Mode, st.Uid, st.Gid, st.Rdev)
		switch st.Mode & syscall.S_IFMT {
		case syscall.S_IFREG:
			content, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" links %d sha256 %x", st.Nlink, sha256.Sum256(content))
		case syscall.S_IFLNK:
			target, err := os.Readlink(name)
			if err != nil {
				return err
			}
			line += " to " + target
		}
		lines = append(lines, line)
		return nil
	})
	return lines, err
}
