package frontend

import (
	"slices"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/machine"
)

func TestParseOptions(t *testing.T) {
	for _, c := range []struct {
		target, file string
		args         map[string]string
		want         options // format by name alone
		err          string
	}{
		{file: "examples/aws.yml", want: options{name: "aws"}},
		{file: "aws.yml", args: map[string]string{"NAME": "vm"}, want: options{name: "vm"}},
		{file: "aws.yml", target: "raw", args: map[string]string{"SIZE": "100M"}, want: options{name: "aws", size: 100 << 20}},
		{file: "aws.yml", target: "raw", args: map[string]string{"SIZE": "2g"}, want: options{name: "aws", size: 2 << 30}},
		{file: "aws.yml", target: "raw", args: map[string]string{"SIZE": "1GiB"}, want: options{name: "aws", size: 1 << 30}},
		{file: "aws.yml", target: "raw", args: map[string]string{"SIZE": "1048576"}, want: options{name: "aws", size: 1 << 20}},
		{file: "aws.yml", args: map[string]string{"COMPRESSION": "zstd:19"}, want: options{name: "aws", compression: "zstd:19"}},
		{file: "aws.yml", target: "raw", args: map[string]string{"MAP": "true"}, want: options{name: "aws", diskMap: true}},

		{file: "a.yml", args: map[string]string{"MAP": "1"}, want: options{name: "a", warnings: []string{"build argument MAP has no effect: only raw disks have a map"}}},
		{file: "a.yml", target: "raw", args: map[string]string{"MAP": "yes"}, err: "use true or false"},
		{file: "a.yml", target: "raw", args: map[string]string{"RESERVE": "4K"}, want: options{name: "a", reserve: 4096}},
		{file: "a.yml", target: "qcow2", args: map[string]string{"RESERVE": "4K"}, want: options{name: "a", warnings: []string{"build argument RESERVE has no effect: no format of --target is a raw disk, a CD or a unified kernel image"}}},
		{file: "a.yml", target: "raw", args: map[string]string{"RESERVE": "1000"}, err: "RESERVE=1000: an image can reserve 512 bytes to 4M, in multiples of 512"},
		{file: "a.yml", target: "raw", args: map[string]string{"RESERVE": "4K", "SIGN": "true"}, err: "omit RESERVE or SIGN"},
		{file: "a.yml", target: "raw,tar", args: map[string]string{"PCRS": "true"}, want: options{name: "a", pcrs: true}},
		{file: "a.yml", target: "raw-bios", args: map[string]string{"PCRS": "true"}, want: options{name: "a", warnings: []string{"build argument PCRS has no effect: no format of --target is a raw disk or a unified kernel image for UEFI"}}},
		{file: "a.yml", target: "raw,uki", args: map[string]string{"PCRS": "true"}, err: "--build-arg PCRS: raw and uki both write NAME.pcrs.json: build one at a time"},
		{file: "a.yml", target: "eif,raw", args: map[string]string{"PCRS": "true"}, err: "--build-arg PCRS: eif and raw both write NAME.pcrs.json: build one at a time"},
		{file: "a.yml", target: "eif,raw", want: options{name: "a"}},
		{file: "a.yml", target: "raw", args: map[string]string{"PCRS": "yes"}, err: "--build-arg PCRS=yes: use true or false"},
		{file: "a.yml", target: "eif", args: map[string]string{"ENCLAVE_ROLE": "arn:aws:iam::123456789012:role/x", "ENCLAVE_INSTANCE": "i-0123456789abcdef0"}, want: options{name: "a"}},
		{file: "a.yml", target: "eif", args: map[string]string{"ENCLAVE_ROLE": "x"}, err: `ENCLAVE_ROLE="x": use the ARN of a role`},
		{file: "a.yml", target: "eif", args: map[string]string{"ENCLAVE_INSTANCE": "i-xyz"}, err: `ENCLAVE_INSTANCE="i-xyz": use the ID of an instance`},
		{file: "a.yml", target: "raw", args: map[string]string{"ENCLAVE_INSTANCE": "i-0123456789abcdef0"}, want: options{name: "a", warnings: []string{"build arguments ENCLAVE_ROLE and ENCLAVE_INSTANCE have no effect: no format of --target is an enclave image"}}},
		{target: "rawr", err: `--target: unknown format "rawr" (did you mean "raw"?); formats: kernel+initrd, aws, containerdisk, docker`},
		{target: "tar,docker", err: "--target: docker is an image, not a file: build it alone"},
		{target: "raw,containerdisk", err: "--target: containerdisk is an image, not a file: build it alone"},
		{target: "raw,qcow", err: `--target: unknown format "qcow" (did you mean "qcow2"?)`},
		{target: "raw,tar,aws", err: `--target: raw and aws both write NAME.raw: build one at a time`},
		{target: "raw,raw", err: `--target: raw and raw both write NAME.raw: build one at a time`},
		{target: "rpi3", err: `--target: rpi3 is not supported`},
		{file: "aws.yml", target: "tar,raw", args: map[string]string{"SIZE": "1G"}, want: options{name: "aws", size: 1 << 30}},
		{file: "a.yml", args: map[string]string{"NAME": "../a"}, err: "not a file name"},
		{file: "a.yml", args: map[string]string{"SIZE": "1G"}, want: options{name: "a", warnings: []string{"build argument SIZE has no effect: no format of --target is a disk"}}},
		{file: "a.yml", target: "raw", args: map[string]string{"SIZE": "-1M"}, err: "not a size"},
		{file: "a.yml", target: "raw", args: map[string]string{"SIZE": "1X"}, err: "not a size"},
		{file: "a.yml", target: "raw", args: map[string]string{"SIZE": "99999999T"}, err: "not a size"},
		{file: "a.yml", args: map[string]string{"COMPRESSION": "zstdd"}, err: `COMPRESSION: compression "zstdd": use zstd, gzip or none`},
		{file: "a.yml", args: map[string]string{"COMPRESSION": "gzip:10"}, err: "the level of gzip is a number from 1 to 9"},
		{file: "a.yml", args: map[string]string{"COMPRESSION": "none:1"}, err: "none has no level"},
		{file: "a.yml", args: map[string]string{"SOURCE_DATE_EPOCH": "today"}, err: "use a number of seconds"},
	} {
		got, err := parseOptions(c.target, c.args, c.file)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q %v: error %v, want %q", c.target, c.args, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q %v: %v", c.target, c.args, err)
			continue
		}
		if got.name != c.want.name || got.size != c.want.size || got.diskMap != c.want.diskMap || got.pcrs != c.want.pcrs || got.reserve != c.want.reserve || got.compression != c.want.compression || !slices.Equal(got.warnings, c.want.warnings) {
			t.Errorf("%q %v: got %+v, want %+v", c.target, c.args, got, c.want)
		}
	}
}

func TestUnknownArguments(t *testing.T) {
	got := unknownArguments(map[string]string{
		"SIZ": "1G", "NAME": "a", "SOURCE_DATE_EPOCH": "0", "http_proxy": "x", "BUILDKIT_SYNTAX": "y", "CONSOLE": "z",
	}, []machine.ArgValue{{Arg: machine.Arg{Name: "CONSOLE"}}})
	if len(got) != 1 || !strings.Contains(got[0], `SIZ has no effect (did you mean "SIZE"?); known: CONSOLE, NAME`) {
		t.Errorf("got %q", got)
	}
}
