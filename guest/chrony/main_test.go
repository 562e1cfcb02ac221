package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestConfiguration(t *testing.T) {
	const (
		amazon = "server 169.254.169.123 prefer iburst minpoll 4 maxpoll 4|server fd00:ec2::123 iburst minpoll 4 maxpoll 4"
		pool   = "pool pool.ntp.org iburst"
	)
	nitro := map[string]string{"sys/class/dmi/id/sys_vendor": "Amazon EC2\n", "sys/class/dmi/id/bios_version": "1.0\n"}
	for name, test := range map[string]struct {
		files      map[string]string
		directives []string
		want       string // up to the first directive that is always there
	}{
		"elsewhere":            {map[string]string{"sys/class/dmi/id/sys_vendor": "QEMU\n"}, nil, pool},
		"no SMBIOS":            {nil, nil, pool},
		"Nitro":                {nitro, nil, amazon},
		"Xen":                  {map[string]string{"sys/class/dmi/id/sys_vendor": "Xen\n", "sys/class/dmi/id/bios_version": "4.11.amazon\n"}, nil, amazon},
		"command":              {nitro, []string{"server a", "server b"}, "server a|server b"},
		"metadata":             {map[string]string{"run/config/ntp/cloud-config.sources": "server c\n"}, nil, ""},
		"metadata and command": {map[string]string{"run/config/ntp/cloud-config.sources": "server c\n"}, []string{"server a"}, "server a"},
		"clocks": {map[string]string{
			"sys/class/dmi/id/sys_vendor":      "Amazon EC2\n",
			"sys/class/ptp/ptp0/clock_name":    "KVM virtual PTP\n",
			"sys/class/ptp/ptp1/clock_name":    "ena-ptp-00\n",
			"sys/class/ptp/ptp2/clock_name":    "ena-ptp-01\n",
			"dev/ptp0":                         "",
			"dev/ptp1":                         "",
			"sys/class/ptp/ptp3/no_clock_name": "",
		}, nil, amazon + "|refclock PHC /dev/ptp1 poll 0 delay 0.000010 prefer"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for file, text := range test.files {
				path := filepath.Join(root, file)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got := configuration(root, false, test.directives)
			common := slices.Index(got, "sourcedir /run/config/ntp")
			if common < 0 {
				t.Fatalf("got %q", got)
			}
			if got := strings.Join(got[:common], "|"); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
	if got := configuration("/", true, []string{"server a"}); !slices.Equal(got, []string{"-f", file}) {
		t.Errorf("with a file: %q", got)
	}
}
