package machine

import (
	"path"
	"slices"
	"strings"
)

// boundSource is a path of the machine that a container binds.
type boundSource struct {
	container string // what diagnostics call it
	path      string // clean, without a leading slash
	writable  bool
	at        Range
}

// metadataDirectories are where the metadata of an instance are, written by
// packages such as slipwaybuild/metadata.
var metadataDirectories = []string{"run/config", "var/config"}

// runtimeDirectories are those whose content comes from init images, from the
// kernel, or from programs that run in the machine.
var runtimeDirectories = []string{
	"bin", "boot", "containers", "dev", "lib", "lib32", "lib64", "mnt", "proc", "run", "sbin", "sys", "tmp", "usr", "var",
}

// imageFiles are what init images usually have in /etc.
var imageFiles = []string{
	"alpine-release", "apk", "ca-certificates", "cni", "containerd", "crypttab", "debian_version", "fstab", "group", "hostname", "hosts",
	"init.d", "inittab", "issue", "ld.so.cache", "ld.so.conf", "linuxkit", "localtime", "machine-id", "modprobe.d", "motd", "mtab",
	"nsswitch.conf", "os-release", "passwd", "pki", "profile", "protocols", "resolv.conf", "securetty", "services", "shadow",
	"shells", "shutdown.d", "ssl", "sysctl.conf", "sysctl.d", "terminfo", "timezone", "udev",
}

// bound notes what a container binds and creates.
func (p *planner) bound(title string, c *Container, place func(key string, i int) Range) {
	if strings.Contains(path.Base(c.Image.Name), "metadata") { // a package for it
		p.made = append(p.made, metadataDirectories...)
	}
	add := func(source string, options []string, at Range) {
		if strings.HasPrefix(source, "/") {
			p.sources = append(p.sources, boundSource{title, relative(source), !slices.Contains(options, "ro"), at})
		}
	}
	for i, b := range c.Binds {
		add(b.Source, b.Options, place("binds", i))
	}
	for i := range c.Mounts {
		if m := c.Mounts[i].complete(); m.Type == "bind" {
			add(m.Source, m.Options, place("mounts", i))
		}
	}
	for _, dir := range c.Runtime.Mkdir {
		p.made = append(p.made, relative(dir))
	}
	for _, m := range c.Runtime.Mounts {
		p.made = append(p.made, relative(m.Destination))
	}
}

// relative returns the shortest form of a path, without a leading slash.
func relative(p string) string { return strings.TrimPrefix(path.Clean("/"+p), "/") }

// warnSources finds sources of binds that nothing known provides: without them,
// the container does not start.
func (p *planner) warnSources() {
	exists := map[string]bool{}    // paths and the directories above them
	open := map[string]bool{}      // directories whose content is not known
	writers := map[string]string{} // containers that bind a directory writable
	provide := func(file string) {
		exists[file] = true
		for _, dir := range parents(file) {
			exists[dir] = true
		}
	}
	for _, e := range p.plan.Files {
		provide(e.Path)
		open[e.Path] = e.Type == TypeSymlink
	}
	for _, dir := range p.made {
		provide(dir)
		open[dir] = true
	}
	for _, s := range p.sources {
		if !s.writable {
			continue
		}
		writers[s.path] = s.container
		for _, dir := range metadataDirectories { // the second is a link to the first
			if s.path == "" || strings.HasPrefix(dir, s.path+"/") {
				open[metadataDirectories[0]], open[metadataDirectories[1]] = true, true
			}
		}
	}
	for _, s := range p.sources {
		if s.path == "" || exists[s.path] || usual(s.path) {
			continue
		}
		known := false
		for _, dir := range append(parents(s.path), s.path) {
			writer, ok := writers[dir]
			known = known || open[dir] || ok && dir != s.path && writer != s.container
		}
		if known {
			continue
		}
		if isMetadata(s.path) {
			p.report.warn(BindMissing, s.at, "%s binds /%s, but no container of the machine writes metadata: add one, for example slipwaybuild/metadata to onboot", s.container, s.path)
			continue
		}
		p.report.warn(BindMissing, s.at, "%s binds /%s, which neither files nor another container provides; without it the container does not start", s.container, s.path)
	}
}

// isMetadata reports whether a path is that of metadata.
func isMetadata(p string) bool {
	for _, dir := range metadataDirectories {
		if p == dir || strings.HasPrefix(p, dir+"/") {
			return true
		}
	}
	return false
}

// usual reports whether a path may come from an init image or from a program
// that runs in the machine.
func usual(p string) bool {
	if isMetadata(p) {
		return false
	}
	first, rest, below := strings.Cut(p, "/")
	if first == "etc" {
		name, _, _ := strings.Cut(rest, "/")
		return !below || slices.Contains(imageFiles, name)
	}
	return slices.Contains(runtimeDirectories, first)
}
