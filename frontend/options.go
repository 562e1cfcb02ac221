package frontend

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/slipway-build/slipway/exporter"
	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/machine"
)

// An argument is a build argument that the frontend knows.
type argument struct {
	name, description, value string
}

// arguments lists the build arguments with their defaults as text for people.
var arguments = []argument{
	{"NAME", "prefix of the output files", "the machine YAML's base name"},
	{"SIZE", "size of a disk, such as 100M or 1G", "the smallest that fits"},
	{"MAP", "true writes NAME.raw.map beside a disk, which tells data, zeros and what is free apart", "false"},
	{"COMPRESSION", "of the initramfs: zstd, gzip or none, with :LEVEL if need be", "the best that the kernel unpacks"},
	{"HOME", "your home folder, for sources of files that begin with ~", "none"},
	{LockUpdate, "images that --call=machine.lock looks up again, by commas", "all"},
	{"OVERLAYS", "machine YAMLs to merge into this one, relative to it, by commas", "none"},
}

// foreign build arguments are BuildKit's or the environment's, not ours to judge.
var foreign = []string{
	"SOURCE_DATE_EPOCH", "HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY",
}

type options struct {
	formats     []exporter.Format
	name        string
	size        int64 // bytes, 0 for the smallest that fits
	diskMap     bool  // written beside a disk
	compression string
	epoch       *int64
	warnings    []string
}

// time is that of the output, in seconds since 1970.
func (o options) time() int64 {
	if o.epoch != nil {
		return *o.epoch
	}
	return exporter.Epoch
}

// parseOptions reads what the user chose by --target and --build-arg.
func parseOptions(target string, args map[string]string, filename string) (options, error) {
	o := options{
		name:        args["NAME"],
		compression: args["COMPRESSION"],
		warnings:    unknownArguments(args),
	}
	var err error
	if o.formats, err = parseTarget(target); err != nil {
		return o, err
	}
	if o.name == "" {
		base := path.Base(filename)
		o.name = strings.TrimSuffix(base, path.Ext(base))
	}
	if o.name == "." || o.name == ".." || strings.ContainsAny(o.name, "/\x00") {
		return o, fmt.Errorf("--build-arg NAME=%s: not a file name; give a name without slashes", o.name)
	}
	has := func(attribute func(exporter.Format) bool) bool { return slices.ContainsFunc(o.formats, attribute) }
	if s := args["SIZE"]; s != "" {
		if o.size, err = parseSize(s); err != nil {
			return o, err
		}
		if !has(func(f exporter.Format) bool { return f.Disk }) {
			o.size = 0
			o.warnings = append(o.warnings, "build argument SIZE has no effect: no disk is made")
		}
	}
	if s := args["MAP"]; s != "" {
		if o.diskMap, err = strconv.ParseBool(s); err != nil {
			return o, fmt.Errorf("--build-arg MAP=%s: neither true nor false", s)
		}
		if o.diskMap && !has(func(f exporter.Format) bool { return f.Map }) {
			o.diskMap = false
			o.warnings = append(o.warnings, "build argument MAP has no effect: only raw disks have a map")
		}
	}
	if o.compression != "" {
		if _, err := segment.ParseCompression(o.compression); err != nil {
			return o, fmt.Errorf("--build-arg COMPRESSION: %w", err)
		}
	}
	if s := args["SOURCE_DATE_EPOCH"]; s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 {
			return o, fmt.Errorf("--build-arg SOURCE_DATE_EPOCH=%s: not a number of seconds since 1970", s)
		}
		o.epoch = &n
	}
	return o, nil
}

// parseTarget reads the names of formats, separated by commas: the default if
// there is none.
func parseTarget(target string) ([]exporter.Format, error) {
	if target == "" {
		return exporter.Formats[:1], nil
	}
	var names []string
	for _, f := range exporter.Formats {
		names = append(names, f.Name)
	}
	var formats []exporter.Format
	owners := map[string]string{} // of files
	for name := range strings.SplitSeq(target, ",") {
		i := slices.Index(names, name)
		if name == "rpi3" {
			return nil, errors.New("--target: rpi3 is not supported: the firmware of a Raspberry Pi 3 boots neither by BIOS nor by UEFI; use kernel+initrd")
		}
		if i < 0 {
			return nil, fmt.Errorf("--target: unknown format %q%s (formats: %s)", name, machine.Suggest(name, names), strings.Join(names, ", "))
		}
		for _, file := range exporter.Formats[i].Files {
			if other, ok := owners[file]; ok {
				return nil, fmt.Errorf("--target: %s and %s both write %s: make one of them", other, name, file)
			}
			owners[file] = name
		}
		formats = append(formats, exporter.Formats[i])
	}
	for _, f := range formats {
		if f.Image && len(formats) > 1 {
			return nil, fmt.Errorf("--target: %s is an image and not a file beside others: build it alone", f.Name)
		}
	}
	return formats, nil
}

// parseSize reads a number of bytes with an optional binary unit.
func parseSize(s string) (int64, error) {
	digits := strings.TrimRight(strings.ToUpper(s), "KMGTIB")
	unit := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(s)[len(digits):], "B"), "I")
	shift, ok := map[string]int{"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[unit]
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || !ok || n <= 0 || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("--build-arg SIZE=%s: not a size; give a number with M or G, such as 100M", s)
	}
	return n << shift, nil
}

// unknownArguments names the build arguments that have no meaning here, each
// with what the user may have meant.
func unknownArguments(args map[string]string) []string {
	var names, out []string
	for _, a := range arguments {
		names = append(names, a.name)
	}
	for _, name := range slices.Sorted(maps.Keys(args)) {
		upper := strings.ToUpper(name)
		if slices.Contains(names, name) || slices.Contains(foreign, upper) || strings.HasPrefix(upper, "BUILDKIT_") {
			continue
		}
		out = append(out, fmt.Sprintf("build argument %s has no effect%s (known: %s)",
			name, machine.Suggest(name, names), strings.Join(names, ", ")))
	}
	return out
}
