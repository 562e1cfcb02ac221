package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/slipway-build/slipway/internal/kernel/cmdline"
)

// A platform is what the machine itself says about where it runs: fields of its
// SMBIOS tables, by their names in /sys/class/dmi/id, and its kernel arguments.
type platform struct {
	dmi     map[string]string
	cmdline []cmdline.Arg
	// reserved reports whether there is data in the file that the build of the
	// image reserves.
	reserved bool
}

// dmiFields are the fields that identify clouds.
var dmiFields = []string{"sys_vendor", "product_name", "product_version", "product_uuid", "chassis_asset_tag", "board_vendor", "bios_vendor"}

// readPlatform reads the platform below root. Missing fields, as on machines
// without SMBIOS, are empty.
func readPlatform(root string) platform {
	p := platform{dmi: map[string]string{}}
	for _, field := range dmiFields {
		text, _ := os.ReadFile(filepath.Join(root, "sys/class/dmi/id", field))
		p.dmi[field] = strings.TrimSpace(string(text))
	}
	text, _ := os.ReadFile(filepath.Join(root, "proc/cmdline"))
	p.cmdline = cmdline.Parse(string(text))
	data, err := readReserve(root)
	p.reserved = err == nil && data != nil
	return p
}

// has reports whether a field starts with a text, ignoring case.
func (p platform) has(field, text string) bool {
	value := p.dmi[field]
	return len(value) >= len(text) && strings.EqualFold(value[:len(text)], text)
}

// argument returns the value of the kernel argument NAME=VALUE, the last one if
// there are several.
func (p platform) argument(name string) (value string, ok bool) {
	for _, arg := range p.cmdline {
		if arg.Key == name && arg.HasValue {
			value, ok = arg.Value, true
		}
	}
	return value, ok
}

// is returns a function that reports whether a field starts with one of the
// texts.
func is(field string, texts ...string) func(platform) bool {
	return func(p platform) bool {
		for _, text := range texts {
			if p.has(field, text) {
				return true
			}
		}
		return false
	}
}
