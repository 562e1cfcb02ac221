package machine

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	distref "github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/contract/policy"
	"github.com/slipway-build/slipway/internal/kernel/cmdline"
	"github.com/slipway-build/slipway/internal/schema"
)

// The names of the rules of warnings. They are stable.
const (
	AddIgnored      = "AddIgnored"
	AllCapabilities = "AllCapabilities"
	BindMissing     = "BindMissing"
	FileConflict    = "FileConflict"
	FileHidden      = "FileHidden"
	HostnameShared  = "HostnameShared"
	KernelIgnored   = "KernelIgnored"
	KernelWritable  = "KernelWritable"
	LabelGrants     = "LabelGrants"
	LatestTag       = "LatestTag"
	NeverEnds       = "NeverEnds"
	NeverStarts     = "NeverStarts"
	NoCommand       = "NoCommand"
	NoInit          = "NoInit"
	NotPortable     = "NotPortable"
	PathLost        = "PathLost"
	SecretArg       = "SecretArg"
	SourceOutside   = "SourceOutside"
	TrustIgnored    = "TrustIgnored"
	UserIgnored     = "UserIgnored"
)

// A Rule is a rule of warnings.
type Rule struct{ Name, Description string }

// Rules returns all rules of warnings, sorted by name.
func Rules() []Rule {
	return []Rule{
		{AddIgnored, "capabilities.add and binds.add extend the lists of the image's label; they are ignored if capabilities or binds is set"},
		{AllCapabilities, "a service with all capabilities and no other restriction (readonly, noNewPrivileges, resources, userns) can take over the machine"},
		{BindMissing, "a container binds a path of the machine that neither files, a metadata package nor another container provides"},
		{FileConflict, "two entries of files write the same path with different types; the last one wins"},
		{FileHidden, "the init mounts temporary filesystems on /run, /tmp and /var, which hide files of the root filesystem below them"},
		{HostnameShared, "a host name needs a separate UTS namespace; without uts: new the container does not start"},
		{KernelIgnored, "the other keys of kernel are ignored if kernel.image is not set"},
		{KernelWritable, "root in a service without capabilities can write /proc/sys or /sys, and so take over the machine"},
		{LabelGrants, "the label of an image grants mounts and namespaces of the machine, or all ambient capabilities, although the machine YAML denies all capabilities"},
		{LatestTag, "an image without a tag, or with the tag latest, can change although the machine YAML does not"},
		{NeverEnds, "an onboot container runs a program that does not end, so that the services never start"},
		{NeverStarts, "the container runtime rejects the configuration of a container"},
		{NoCommand, "neither the machine YAML nor the image sets the command of the container"},
		{NoInit, "neither init nor files has a program that the kernel could start, so it stops with a panic"},
		{NotPortable, "Slipway accepts this form, LinuxKit rejects it"},
		{PathLost, "env replaces the whole environment of the image, including PATH"},
		{SecretArg, "the name of an arg says that its value is a secret, but build arguments are recorded in the provenance and in caches"},
		{SourceOutside, "the source of an optional file is outside of the build context, so the file is left out"},
		{TrustIgnored, "the section trust is ignored"},
		{UserIgnored, "the USER of an image is ignored; uid and gid set the user and group of the process"},
	}
}

// Warnings returns the warnings that follow from the YAML alone, sorted by
// source and line. [Plan.Warnings] has those that depend on the images.
func (m *Machine) Warnings() Diagnostics { return m.warnings }

// warn finds what is allowed but probably not intended.
func (m *Machine) warn(r *report) {
	if trust := m.node.Key("trust"); trust.Set() {
		r.warn(TrustIgnored, at(trust), "trust is ignored: pin images by digest instead")
	}
	m.warnKernel(r)
	m.warnImages(r)
	for _, s := range m.sections() {
		for i := range s.containers {
			for _, key := range []string{"capabilities", "binds"} {
				all, add := s.node.Index(i).Key(key), s.node.Index(i).Key(key+".add")
				if all.Set() && add.Set() {
					r.warn(AddIgnored, at(add), "%[1]s.add is ignored in %[2]s: %[1]s is set", key, s.title(&s.containers[i]))
				}
			}
		}
	}
	m.warnFiles(r)
}

func (m *Machine) warnKernel(r *report) {
	k, node := &m.Kernel, m.node.Key("kernel")
	if image := node.Key("image"); image.Set() {
		if (len(m.Init) == 0 || m.Prefix.Clean != "") && !m.startsFile() {
			r.warn(NoInit, at(image), "the kernel has nothing to start: add an init image, for example slipwaybuild/init")
		}
		return
	}
	tar := ""
	if k.Tar != nil {
		tar = *k.Tar
	}
	for _, other := range []struct{ name, value string }{
		{"cmdline", k.Cmdline}, {"binary", k.Binary}, {"tar", tar}, {"ucode", k.Ucode},
	} {
		if other.value != "" {
			r.warn(KernelIgnored, at(node.Key(other.name)), "%s is ignored in kernel: image is not set", other.name)
		}
	}
}

// startsFile reports whether the kernel starts one of the files: /init of an
// initramfs (Linux, init/main.c), one of the usual programs of a root filesystem,
// or what the command line names.
func (m *Machine) startsFile() bool {
	args := cmdline.Parse(m.Kernel.Cmdline)
	for _, key := range []string{"init", "rdinit", "root"} {
		if _, ok := cmdline.Lookup(args, key); ok {
			return true
		}
	}
	return slices.ContainsFunc(m.Files, func(f File) bool {
		return slices.Contains([]string{"init", "sbin/init", "etc/init", "bin/init", "bin/sh"}, f.Path.Clean)
	})
}

// warnImages finds references that can change their meaning.
func (m *Machine) warnImages(r *report) {
	for _, ref := range m.ImageRefs() {
		named, err := distref.ParseNormalizedNamed(ref.Name)
		if err != nil {
			continue
		}
		if _, pinned := named.(distref.Digested); pinned {
			continue
		}
		if tagged, ok := named.(distref.Tagged); !ok {
			r.warn(LatestTag, ref.Range, "image %s has no tag: add a version", ref.Text)
		} else if tagged.Tag() == "latest" {
			r.warn(LatestTag, ref.Range, "image %s has the tag latest: use a version", ref.Text)
		}
	}
}

func (m *Machine) warnFiles(r *report) {
	for i := range m.Files {
		path, place := m.Files[i].Path.Clean, at(m.node.Key("files").Index(i))
		for _, dir := range contract.TemporaryDirectories() {
			if strings.HasPrefix(path, dir+"/") {
				r.warn(FileHidden, place, "%s is hidden by the temporary filesystem that the machine mounts on /%s", path, dir)
			}
		}
	}
}

// warnContainer finds warnings that depend on the image of a container. All is
// the container with the label applied.
func (p *planner) warnContainer(s section, own, all schema.Decoded[Container], image ocispec.ImageConfig) {
	o, c := &own.Value, &all.Value
	warn := func(rule string, key, format string, args ...any) {
		p.report.warn(rule, cmp.Or(at(own.Node.Key(key)), at(own.Node.Key("image"))), "%s %s", s.title(o), fmt.Sprintf(format, args...))
	}
	if s.name == contract.Services && hasAll(c.Capabilities) && !c.restricted() {
		key := "capabilities"
		if !own.Node.Key(key).Set() {
			key = "capabilities.add"
		}
		warn(AllCapabilities, key, "has all capabilities and no other restriction: list those that it needs, or set readonly")
	}
	if paths := c.writableKernel(); s.name == contract.Services && p.confined(c) && len(paths) > 0 {
		advice := fmt.Sprintf("add annotations: {%ssandbox: default}, or set uid", policy.Prefix)
		if slices.ContainsFunc(paths, func(p string) bool { return !slices.Contains(kernelDirectories, p) }) { // of a bind
			advice = fmt.Sprintf("add readonlyPaths: [%s]", strings.Join(paths, ", "))
		}
		warn(KernelWritable, "image", "runs as root, can write %s, and so take over the machine: %s", strings.Join(paths, " and "), advice)
	}
	if granted := grants(own, all); denied(o, own.Node) && len(granted) > 0 {
		warn(LabelGrants, "capabilities", "has no capabilities, but the label of image %s grants %s: set these keys too", o.Image.Text, strings.Join(granted, ", "))
	}
	args := slices.Concat(image.Entrypoint, image.Cmd)
	if c.Command != nil {
		args = c.Command
	}
	if program, advice := neverEnds(args); s.name == contract.Onboot && program != "" {
		warn(NeverEnds, "command", "runs %s, which does not end, so that the services never start: %s", program, advice)
	}
	p.bound(s.title(o), c, func(key string, i int) Range {
		return cmp.Or(at(own.Node.Key(key).Index(i)), at(own.Node.Key("image")))
	})
	if user, _, _ := strings.Cut(image.User, ":"); user != "" && user != "root" && user != "0" && !all.Node.Key("uid").Set() {
		warn(UserIgnored, "image", "runs as root: USER %s of image %s is ignored, set uid and gid", image.User, o.Image.Text)
	}
	if o.Env != nil && hasPath(image.Env) && !hasPath(o.Env) {
		warn(PathLost, "env", "has no PATH: env replaces the environment of image %s", o.Image.Text)
	}
	if c.Hostname != "" && !c.Uts.separate() {
		warn(HostnameShared, "hostname", "does not start with a hostname in the UTS namespace of the machine: add uts: new")
	}
	for _, f := range c.faults() {
		node := own.Node.Key(f.key)
		place := cmp.Or(at(node.Key(f.entry)), at(node), at(own.Node.Key("image")))
		p.report.warn(NeverStarts, place, "%s never starts: %s", s.title(o), f.reason)
	}
	if len(c.Command) == 0 && (c.Command != nil || len(image.Entrypoint)+len(image.Cmd) == 0) {
		warn(NoCommand, "command", "has nothing to run: add a command")
	}
}

// restricted reports whether something other than capabilities restricts the
// processes of a container.
func (c *Container) restricted() bool {
	return c.Readonly || c.NoNewPrivileges || c.Resources != nil || c.Userns.separate()
}

// hasPath reports whether an environment sets PATH.
func hasPath(env []string) bool {
	return slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "PATH=") })
}
