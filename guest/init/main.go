// Init is the first process of a machine and its only one outside containers: it mounts, loads drivers, runs the onboot containers, starts
// containerd and the services, and takes all of it down again. It stays process 1 until the machine is off.
//
// Under other names the same program is poweroff, reboot and halt, which ask process 1, service, which asks it about
// the services and gives it orders, and modprobe, which the kernel calls.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

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
		err = askForPower(name, os.Args[1:])
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}
