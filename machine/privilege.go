package machine

import (
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/slipway-build/slipway/internal/schema"
)

// denied reports whether a list of capabilities is written and grants none.
func denied(c *Container, node *schema.Node) bool {
	return node.Key("capabilities").Set() && len(expanded(c.Capabilities)) == 0
}

// grants returns what the label of an image adds to the privileges of a
// container beyond capabilities. Own is the container without the label.
func grants(own, all schema.Decoded[Container]) []string {
	var out []string
	c := &all.Value
	add := func(key, text string) {
		if !own.Node.Key(key).Set() {
			out = append(out, text)
		}
	}
	if hasAll(c.Ambient) {
		add("ambient", "ambient: all")
	}
	for _, n := range []struct {
		key  string
		word Namespace
	}{{"net", c.Net}, {"pid", c.Pid}, {"ipc", c.Ipc}, {"uts", c.Uts}, {"userns", c.Userns}} {
		if n.word == "host" || n.word == "root" {
			add(n.key, n.key+": "+string(n.word))
		}
	}
	for _, b := range c.Binds {
		if hostMount(b.Source, b.Options) {
			add("binds", "a bind of "+b.Source)
		}
	}
	for i := range c.Mounts {
		if m := c.Mounts[i].complete(); m.Type == "bind" && hostMount(m.Source, m.Options) {
			add("mounts", "a mount of "+m.Source)
		}
	}
	return out
}

// hostMount reports whether a bind gives access to the machine: it is writable,
// or of a directory at the top. Volumes do not.
func hostMount(source string, options []string) bool {
	return strings.HasPrefix(source, "/") && (!slices.Contains(options, "ro") || strings.Count(path.Clean(source), "/") == 1)
}

// kernelDirectories are those through which root controls the kernel, even
// without capabilities: for example /proc/sys/kernel/core_pattern names a program
// that the kernel runs outside of the container.
var kernelDirectories = []string{"/proc/sys", "/sys"}

// confined reports whether a container runs as root without all capabilities.
// With all of them, it can take over the machine anyway: see [AllCapabilities].
func (p *planner) confined(c *Container) bool {
	uid, _ := p.number(c.UID)
	return uid == 0 && !c.Userns.separate() && !hasAll(c.Capabilities)
}

// writableKernel returns the paths at which root in a container can write the
// kernel directories: those that a bind opens, and, if the container has no
// capabilities, so that it seems harmless, those of the usual mounts.
func (c *Container) writableKernel() []string {
	bare := len(expanded(c.Capabilities))+len(expanded(c.Ambient)) == 0
	var found []string
	mounts := c.mounts()
	for i, m := range mounts {
		if slices.Contains(m.Options, "ro") || slices.Contains(m.Options, "rro") {
			continue
		}
		source := ""
		switch {
		case m.Type == "bind":
			source = path.Clean(m.Source)
		case bare && m.Type == "proc":
			source = "/proc"
		case bare && m.Type == "sysfs":
			source = "/sys"
		default:
			continue
		}
		for _, dir := range kernelDirectories {
			rest, below := strings.CutPrefix(dir, strings.TrimSuffix(source, "/"))
			if !below || rest != "" && rest[0] != '/' {
				continue
			}
			at := path.Join(m.Destination, rest)
			hidden := slices.ContainsFunc(mounts[i+1:], func(m specs.Mount) bool { return within(at, m.Destination) })
			if !hidden && !c.protects(at) {
				found = append(found, at)
			}
		}
	}
	return found
}

// protects reports whether a path in a container is read-only or masked, or
// below one that is.
func (c *Container) protects(file string) bool {
	return slices.ContainsFunc(slices.Concat(c.ReadonlyPaths, c.MaskedPaths), func(p string) bool { return within(file, p) })
}

// within reports whether a file is at or below a path.
func within(file, p string) bool {
	p = path.Clean(p)
	return file == p || strings.HasPrefix(file, strings.TrimSuffix(p, "/")+"/")
}

// endless are programs that run until they are stopped, with the options that
// make them end by themselves.
var endless = map[string][]string{
	"containerd":    nil,
	"dhcpcd":        {"-1", "--oneshot", "-T", "--test", "-U", "--dumplease"},
	"dockerd":       nil,
	"node_exporter": nil,
	"rngd":          {"-1", "--oneshot"},
	"sshd":          nil,
}

// neverEnds returns the program that a container runs until it is stopped, and
// what to do about it. The program is empty if none is known.
func neverEnds(args []string) (program, advice string) {
	if len(args) > 0 && path.Base(args[0]) == "tini" { // it runs the program that follows
		args = args[1:]
		for len(args) > 0 && strings.HasPrefix(args[0], "-") {
			args = args[1:]
		}
	}
	if len(args) == 0 {
		return "", ""
	}
	options, ok := endless[path.Base(args[0])]
	if !ok || slices.ContainsFunc(args[1:], func(a string) bool { return ends(a, options) }) {
		return "", ""
	}
	advice = "move it to services"
	if len(options) > 0 {
		advice = "add " + options[0] + ", or " + advice
	}
	return path.Base(args[0]), advice
}

// ends reports whether an argument is, or combines, one of the options.
func ends(arg string, options []string) bool {
	if slices.Contains(options, arg) {
		return true
	}
	return len(arg) > 2 && arg[0] == '-' && arg[1] != '-' &&
		slices.ContainsFunc(options, func(o string) bool {
			return len(o) == 2 && strings.Contains(arg, o[1:]) && !strings.ContainsAny(arg, "=/")
		})
}
