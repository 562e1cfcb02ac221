package frontend

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/slipway-build/slipway/exporter"
	"github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/printable"
	"github.com/slipway-build/slipway/internal/suggest"
	graph "github.com/slipway-build/slipway/llb"
	"github.com/slipway-build/slipway/machine"
)

// An argument is a build argument of the frontend, with its default as text for
// people.
type argument struct {
	name, description, value string
}

var arguments = []argument{
	{"NAME", "prefix of the output files", "the machine YAML's base name"},
	{"SIZE", "size of a disk, for example 100M or 1G", "the smallest that fits"},
	{"MAP", "true writes NAME.raw.map beside a disk: which parts are data, zeros or unused", "false"},
	{"RESERVE", "room in disks, CDs and unified kernel images that slipway customize fills, for example 4K", "none"},
	{"ENCLAVE_ROLE", "ARN of the IAM role of the instance that an enclave runs on, for PCR3 and for a policy of a key in AWS KMS", "none"},
	{"ENCLAVE_INSTANCE", "ID of that instance, for PCR4", "none"},
	{"COMPRESSION", "compression of the initramfs: zstd, gzip or none, optionally with :LEVEL", "the best that the kernel decompresses: zstd:3, else gzip or none"},
	{"SIGN", "for Secure Boot or an enclave image: true signs the machine with the secrets slipway.key and slipway.crt, later reserves room for slipway sign; both lock it down", "false"},
	{"PCRS", "true writes NAME.pcrs.json beside a raw disk or a unified kernel image: the registers of a TPM after a boot, for a signed machine with the keys of the firmware in the secret slipway.uefi-data", "false"},
	{ReleaseCache, "false packs all packages here instead of loading packed ones from the cache of the release", "true"},
	{"HOME", "your home folder, for sources of files that start with ~", "none"},
	{LockUpdate, "comma-separated images that --call=machine.lock resolves again", "all"},
	{"OVERLAYS", "comma-separated machine YAMLs to merge into this one, relative to it", "none"},
}

// otherArguments are build arguments that BuildKit reads or that docker buildx
// passes from the environment.
var otherArguments = []string{
	"SOURCE_DATE_EPOCH", "HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY",
}

// What identifies the instance that an enclave runs on.
var (
	roleARN    = regexp.MustCompile(`^arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]{1,576}$`)
	instanceID = regexp.MustCompile(`^i-[0-9a-f]{8,17}$`)
)

// options are the user's choices about the output.
type options struct {
	formats     []format.Format
	name        string
	size        int64 // bytes, 0 for the smallest that fits
	diskMap     bool  // written beside a disk
	sign        graph.Sign
	pcrs        bool   // written beside a disk or a unified kernel image
	reserve     int64  // bytes for additions after the build
	role        string // ARN of the role of an enclave's instance
	instance    string // ID of that instance
	compression string
	// releaseCache reports whether packed packages may come from the cache of the
	// frontend's release.
	releaseCache bool
	epoch        *int64
	warnings     []string
}

// isReserved reports whether a build argument has a meaning that args of a
// machine cannot have: an option of Slipway or BuildKit, or one that Dockerfiles
// get without defining it.
func isReserved(name string) bool {
	upper := strings.ToUpper(name)
	for _, prefix := range []string{"BUILDKIT_", "TARGET", "BUILD"} {
		if rest, ok := strings.CutPrefix(upper, prefix); ok && (prefix == "BUILDKIT_" || slices.Contains([]string{"PLATFORM", "OS", "OSVERSION", "ARCH", "VARIANT"}, rest)) {
			return true
		}
	}
	return slices.ContainsFunc(arguments, func(a argument) bool { return a.name == upper }) || slices.Contains(otherArguments, upper)
}

// time returns the time of the output, in seconds since 1970.
func (o options) time() int64 {
	if o.epoch != nil {
		return *o.epoch
	}
	return exporter.Epoch
}

// parseOptions parses --target and --build-arg. The file name is that of the
// machine YAML, and its args are not options. Errors and warnings are printable.
func parseOptions(target string, args map[string]string, filename string, own ...machine.ArgValue) (options, error) {
	o, err := decodeOptions(target, args, filename)
	o.warnings = append(unknownArguments(args, own), o.warnings...)
	if err != nil {
		return o, errors.New(printable.Line(err.Error()))
	}
	return o, nil
}

func decodeOptions(target string, args map[string]string, filename string) (options, error) {
	o := options{
		name:        args["NAME"],
		compression: args["COMPRESSION"],
	}
	var err error
	if o.formats, err = parseTarget(target); err != nil {
		return o, err
	}
	if o.name == "" {
		base := path.Base(filename)
		o.name = strings.TrimSuffix(base, path.Ext(base))
	}
	if err := o.checkName(); err != nil {
		return o, err
	}
	takes := func(option format.Option) bool {
		return slices.ContainsFunc(o.formats, func(f format.Format) bool { return f.Options.Has(option) })
	}
	if s := args["SIZE"]; s != "" {
		if o.size, err = parseSize("SIZE", s); err != nil {
			return o, err
		}
		if !takes(format.Size) {
			o.size = 0
			o.warnings = append(o.warnings, "build argument SIZE has no effect: no format of --target is a disk")
		}
	}
	if s := args["RESERVE"]; s != "" {
		if o.reserve, err = parseSize("RESERVE", s); err != nil {
			return o, err
		}
		if err := disk.CheckReserve(o.reserve); err != nil {
			return o, fmt.Errorf("--build-arg RESERVE=%s: %w", s, err)
		}
		if !takes(format.Reserve) {
			o.reserve = 0
			o.warnings = append(o.warnings, "build argument RESERVE has no effect: no format of --target is a raw disk, a CD or a unified kernel image")
		}
	}
	o.role, o.instance = args["ENCLAVE_ROLE"], args["ENCLAVE_INSTANCE"]
	switch {
	case o.role != "" && !roleARN.MatchString(o.role):
		return o, fmt.Errorf("--build-arg ENCLAVE_ROLE=%q: use the ARN of a role, for example arn:aws:iam::123456789012:role/enclaves", o.role)
	case o.instance != "" && !instanceID.MatchString(o.instance):
		return o, fmt.Errorf("--build-arg ENCLAVE_INSTANCE=%q: use the ID of an instance, for example i-0123456789abcdef0", o.instance)
	case (o.role != "" || o.instance != "") && !takes(format.Enclave):
		o.role, o.instance = "", ""
		o.warnings = append(o.warnings, "build arguments ENCLAVE_ROLE and ENCLAVE_INSTANCE have no effect: no format of --target is an enclave image")
	}
	if s := args["MAP"]; s != "" {
		if o.diskMap, err = strconv.ParseBool(s); err != nil {
			return o, fmt.Errorf("--build-arg MAP=%s: use true or false", s)
		}
		if o.diskMap && !takes(format.Map) {
			o.diskMap = false
			o.warnings = append(o.warnings, "build argument MAP has no effect: only raw disks have a map")
		}
	}
	if s := args["PCRS"]; s != "" {
		if o.pcrs, err = strconv.ParseBool(s); err != nil {
			return o, fmt.Errorf("--build-arg PCRS=%s: use true or false", s)
		}
		if o.pcrs && !takes(format.PCRs) {
			o.pcrs = false
			o.warnings = append(o.warnings, "build argument PCRS has no effect: no format of --target is a raw disk or a unified kernel image for UEFI")
		}
		if err := o.checkPCRs(); err != nil {
			return o, err
		}
	}
	if s := args["SIGN"]; s != "" {
		now, err := strconv.ParseBool(s)
		switch {
		case s == string(graph.SignLater):
			o.sign = graph.SignLater
		case err != nil:
			return o, fmt.Errorf("--build-arg SIGN=%s: use true, later or false", s)
		case now:
			o.sign = graph.SignNow
		}
		if o.sign != graph.SignNever && o.reserve > 0 {
			return o, errors.New("--build-arg RESERVE: a signed machine cannot be changed after the build: omit RESERVE or SIGN")
		}
	}
	if o.compression != "" {
		if _, err := segment.ParseCompression(o.compression); err != nil {
			return o, fmt.Errorf("--build-arg COMPRESSION: %w", err)
		}
	}
	if o.releaseCache, err = parseReleaseCache(args[ReleaseCache]); err != nil {
		return o, fmt.Errorf("--build-arg %s=%s: use true or false", ReleaseCache, args[ReleaseCache])
	}
	if s := args["SOURCE_DATE_EPOCH"]; s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 {
			return o, fmt.Errorf("--build-arg SOURCE_DATE_EPOCH=%s: use a number of seconds since 1970", s)
		}
		o.epoch = &n
	}
	return o, nil
}

// checkPCRs returns an error if two formats write NAME.pcrs.json.
func (o options) checkPCRs() error {
	first := ""
	for _, f := range o.formats {
		writes := o.pcrs && f.Options.Has(format.PCRs) || slices.Contains(f.Suffixes, format.PCRsSuffix)
		switch {
		case writes && first != "":
			return fmt.Errorf("--build-arg PCRS: %s and %s both write NAME%s: build one at a time", first, f.Name, format.PCRsSuffix)
		case writes:
			first = f.Name
		}
	}
	return nil
}

// checkName returns an error unless the output files can have the name.
func (o options) checkName() error {
	if o.name == "." || o.name == ".." || strings.Contains(o.name, "/") || strings.ContainsFunc(o.name, unicode.IsControl) {
		return fmt.Errorf("--build-arg NAME=%s: not a file name; use a name without slashes and control characters", o.name)
	}
	for _, f := range o.formats {
		for _, file := range f.Files(o.name) {
			if len(file) > contract.MaxName {
				return fmt.Errorf("--build-arg NAME=%s: too long: a file name has at most %d bytes", o.name, contract.MaxName)
			}
		}
	}
	return nil
}

// parseTarget parses a comma-separated list of formats. Without one, it returns
// the default format.
func parseTarget(target string) ([]format.Format, error) {
	var formats []format.Format
	owners := map[string]string{} // of files
	for name := range strings.SplitSeq(cmp.Or(target, format.Default), ",") {
		f, ok := format.Lookup(name)
		if name == "rpi3" {
			return nil, errors.New("--target: rpi3 is not supported: the firmware of a Raspberry Pi 3 has neither BIOS nor UEFI; use kernel+initrd")
		}
		if !ok {
			names := format.Names()
			return nil, fmt.Errorf("--target: unknown format %q%s; formats: %s", name, suggest.Among(name, names), strings.Join(names, ", "))
		}
		if f.Container && target != name {
			return nil, fmt.Errorf("--target: %s is an image, not a file: build it alone", name)
		}
		for _, file := range f.Files("NAME") {
			if other, ok := owners[file]; ok {
				return nil, fmt.Errorf("--target: %s and %s both write %s: build one at a time", other, name, file)
			}
			owners[file] = name
		}
		formats = append(formats, f)
	}
	return formats, nil
}

// parseSize reads a number of bytes with an optional binary unit.
func parseSize(name, s string) (int64, error) {
	digits := strings.TrimRight(strings.ToUpper(s), "KMGTIB")
	unit := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(s)[len(digits):], "B"), "I")
	shift, ok := map[string]int{"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[unit]
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || !ok || n <= 0 || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("--build-arg %s=%s: not a size; use a number with K, M or G, for example 100M", name, s)
	}
	return n << shift, nil
}

// unknownArguments returns warnings about build arguments without effect.
func unknownArguments(args map[string]string, own []machine.ArgValue) []string {
	var names, out []string
	for _, a := range own {
		names = append(names, string(a.Name))
	}
	for _, a := range arguments {
		names = append(names, a.name)
	}
	for _, name := range slices.Sorted(maps.Keys(args)) {
		upper := strings.ToUpper(name)
		if slices.Contains(names, name) || slices.Contains(otherArguments, upper) || strings.HasPrefix(upper, "BUILDKIT_") {
			continue
		}
		out = append(out, fmt.Sprintf("build argument %s has no effect%s; known: %s",
			printable.Line(name), suggest.Among(name, names), strings.Join(names, ", ")))
	}
	return out
}
