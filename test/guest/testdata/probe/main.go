// Command probe tries, inside a container, what would let it take over the
// machine, and prints on one line what works. Its argument is its name in the
// output.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	var works []string
	try := func(what string, ok bool) {
		if ok {
			works = append(works, what)
		}
	}
	try("core_pattern", writable("/proc/sys/kernel/core_pattern"))
	try("sysrq", writable("/proc/sysrq-trigger"))
	try("sys", writable("/sys/module/printk/parameters/time"))
	_, err := os.Stat("/proc/1/root/containers")
	try("machine", err == nil)
	try("disk", opensDisk())
	child := exec.Command("/proc/self/exe", "nothing")
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}
	try("userns", len(os.Args) > 1 && os.Args[1] != "nothing" && child.Run() == nil)
	// With CAP_SYS_ADMIN all of the above can be undone.
	try("mount", unix.Mount("tmpfs", "/etc", "tmpfs", 0, "") == nil)
	unix.Mount("", "/proc/sys", "", unix.MS_REMOUNT|unix.MS_BIND, "")
	try("remount", !strings.HasPrefix(strings.Join(works, " "), "core_pattern") && writable("/proc/sys/kernel/core_pattern"))
	if len(os.Args) > 1 && os.Args[1] != "nothing" {
		fmt.Printf("PROBE %s: %s.\n", os.Args[1], strings.Join(works, " "))
	}
}

// writable reports whether a file opens for writing. It writes nothing.
func writable(path string) bool {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// opensDisk reports whether a new node of a disk opens. Without such a disk, the
// error is not one of permissions.
func opensDisk() bool {
	for _, dir := range []string{"/dev", "/run", "/tmp", "/", "/var"} {
		path := dir + "/probe"
		if err := unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(8, 0))); err != nil {
			continue
		}
		fd, err := unix.Open(path, unix.O_RDONLY, 0)
		unix.Close(fd)
		os.Remove(path)
		if err == nil || errors.Is(err, unix.ENXIO) {
			return true
		}
	}
	return false
}
