// Command init is the init of the machines that the boot tests start. It reports the
// kernel's command line and the files in /data, and powers off. With an argument, it
// lists the files in that directory instead.
package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Report is what the tests read from the console.
type Report struct {
	Cmdline string
	Root    string // mode and owner of /
	Files   []string
	Error   string
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
	r.Files, err = list("/data")
	return r, err
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
