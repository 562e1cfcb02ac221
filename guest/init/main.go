// Command init is the first process of a machine and its only process outside
// containers. It mounts filesystems, loads drivers, runs the onboot containers,
// starts containerd and the services, and stops all of this again. It stays
// process 1 until the machine is off.
//
// Under other names the same program is poweroff, reboot and halt, which signal
// process 1; service, which queries and controls the services through process
// 1; and modprobe, which the kernel runs.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

// The main goroutine keeps the main thread, so that no other goroutine can
// change the namespaces of /proc/1.
func init() { runtime.LockOSThread() }

func main() {
	name := filepath.Base(os.Args[0])
	var err error
	switch {
	case os.Getpid() == 1:
		if err = enterRoot(); err == nil {
			runMachine() // does not return
		}
	case name == "modprobe":
		err = modprobeCommand(os.Args[1:])
	case name == "service":
		err = serviceCommand(os.Args[1:], os.Stdout)
	default:
		err = powerCommand(name, os.Args[1:])
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}
