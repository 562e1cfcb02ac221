// Command chrony starts chronyd with the time sources of the place where the
// machine runs: on EC2 Amazon's time service and, if the network interface has
// one, its PTP hardware clock; elsewhere the servers of pool.ntp.org.
//
// Usage: chrony [DIRECTIVE...]
//
// A directive of chrony.conf(5), for example "server ntp.example.com iburst",
// and the sources that metadata wrote to /run/config/ntp, are used instead of
// these sources. If /etc/chrony/chrony.conf exists, it is the whole
// configuration.
package main

import (
	"log"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	chronyd  = "/usr/sbin/chronyd"
	file     = "/etc/chrony/chrony.conf"
	metadata = "/run/config/ntp" // directory of metadata's time sources, *.sources
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("chrony: ")
	_, err := os.Stat(file)
	// -d: log to stderr; -U: it is not root, but has the capability to set the
	// clock.
	args := append([]string{chronyd, "-d", "-U"}, configuration("/", err == nil, os.Args[1:])...)
	log.Fatal(unix.Exec(chronyd, args, os.Environ()))
}

// configuration returns chronyd's arguments: its configuration file, or
// directives.
func configuration(root string, hasFile bool, directives []string) []string {
	if hasFile {
		return []string{"-f", file}
	}
	received, _ := filepath.Glob(filepath.Join(root, metadata, "*.sources")) // the pattern is valid
	if len(directives) == 0 && len(received) == 0 {
		directives = sources(root)
	}
	return append(directives,
		"sourcedir "+metadata,
		"driftfile /var/lib/chrony/drift",
		"makestep 1 3", // a clock that is wrong at the start is set at once
		"rtcsync",      // the kernel sets the hardware clock every 11 minutes
		"cmdport 0",    // chronyc uses the socket
		"bindcmdaddress /run/chrony/chronyd.sock",
	)
}

// sources returns the time sources of the machine whose /sys is below root.
func sources(root string) []string {
	if !isEC2(root) {
		return []string{"pool pool.ntp.org iburst"}
	}
	// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configure-ec2-ntp.html
	directives := []string{
		"server 169.254.169.123 prefer iburst minpoll 4 maxpoll 4",
		"server fd00:ec2::123 iburst minpoll 4 maxpoll 4",
	}
	for _, clock := range enaClocks(root) {
		directives = append(directives, "refclock PHC "+clock+" poll 0 delay 0.000010 prefer")
	}
	return directives
}

// isEC2 reports whether the firmware names Amazon, which on instances of the
// Xen hypervisor is only in the version of the BIOS.
func isEC2(root string) bool {
	for field, text := range map[string]string{"sys_vendor": "Amazon EC2", "bios_version": "amazon"} {
		value, _ := os.ReadFile(filepath.Join(root, "sys/class/dmi/id", field))
		if strings.Contains(string(value), text) {
			return true
		}
	}
	return false
}

// enaClocks returns the device nodes of the PTP hardware clocks that belong to
// Amazon's network interfaces, if their driver has phc_enable=1, and that this
// process can read.
func enaClocks(root string) []string {
	clocks, _ := filepath.Glob(filepath.Join(root, "sys/class/ptp/ptp*")) // sorted; the pattern is valid
	var nodes []string
	for _, clock := range clocks {
		name, err := os.ReadFile(filepath.Join(clock, "clock_name"))
		if err != nil || !strings.HasPrefix(string(name), "ena-ptp-") {
			continue
		}
		node := filepath.Join("/dev", filepath.Base(clock))
		f, err := os.Open(filepath.Join(root, node)) // chronyd would exit
		if err != nil {
			log.Print(err)
			continue
		}
		f.Close()
		nodes = append(nodes, node)
	}
	return nodes
}
