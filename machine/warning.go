package machine

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	distref "github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/internal/contract"
)

// The rules of warnings. Their names are stable.
const (
	AddIgnored      = "AddIgnored"
	AllCapabilities = "AllCapabilities"
	FileConflict    = "FileConflict"
	FileHidden      = "FileHidden"
	HostnameShared  = "HostnameShared"
	KernelIgnored   = "KernelIgnored"
	LatestTag       = "LatestTag"
	NoCommand       = "NoCommand"
	NotPortable     = "NotPortable"
	PathLost        = "PathLost"
	TrustIgnored    = "TrustIgnored"
	UserIgnored     = "UserIgnored"
)

// Rule is a rule of warnings.
type Rule struct{ Name, Description string }

// Rules are all rules of warnings, sorted by name.
var Rules = []Rule{
	{AddIgnored, "capabilities.add and binds.add extend those of the image's label; beside capabilities or binds they have no effect"},
	{AllCapabilities, "a service with all capabilities and no limit (readonly, noNewPrivileges, resources, userns) can take over the machine"},
	{FileConflict, "two entries of files write the same path with different types; the last one wins"},
	{FileHidden, "the guest mounts temporary filesystems on /run, /tmp and /var, so files of the image below them are not seen"},
	{HostnameShared, "a host name needs a UTS namespace of its own; without uts: new the container does not start"},
	{KernelIgnored, "without kernel.image the other keys of kernel have no effect"},
	{LatestTag, "an image without tag, or with the tag latest, changes without a change of the machine YAML"},
	{NoCommand, "neither the machine YAML nor the image says what the container runs"},
	{NotPortable, "Slipway accepts this, LinuxKit rejects it"},
	{PathLost, "env replaces the whole environment of the image, PATH included"},
	{TrustIgnored, "the section trust has no effect"},
	{UserIgnored, "the USER of an image has no effect; uid and gid say who the process is"},
}

// Warnings gives what is allowed but hardly meant, as far as the YAML alone tells, sorted by source and line.
// [Plan.Warnings] has those that need the images.
func (m *Machine) Warnings() Diagnostics { return m.warnings }

// warn finds what is hardly meant.
func (m *Machine) warn(r *report) {
	if m.Trust.set() {
		r.add(TrustIgnored, m.Trust.At, "trust has no effect: pin images by digest instead")
	}
	m.warnKernel(r)
	m.warnImages(r)
	for _, s := range m.sections() {
		for _, c := range s.containers {
			where := s.title(c.V)
			ignored(r, c.V.Capabilities, c.V.CapabilitiesAdd, "capabilities", where)
			ignored(r, c.V.Binds, c.V.BindsAdd, "binds", where)
		}
	}
	m.warnFiles(r)
}

func (m *Machine) warnKernel(r *report) {
	k := m.Kernel.V
	if k.Image.set() {
		return
	}
	for _, other := range []struct {
		name string
		value[string]
	}{{"cmdline", k.Cmdline}, {"binary", k.Binary}, {"tar", k.Tar}, {"ucode", k.Ucode}} {
		if other.V != "" {
			r.add(KernelIgnored, other.At, "%s has no effect in kernel without an image", other.name)
		}
	}
}

func ignored[T any](r *report, all, add list[T], name, where string) {
	if all.set() && add.set() {
		r.add(AddIgnored, add.At, "%s.add has no effect in %s beside %s", name, where, name)
	}
}

// warnImages finds images that change under their name.
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
			r.add(LatestTag, ref.Range, "image %s has no tag: add a version", ref.Text)
		} else if tagged.Tag() == "latest" {
			r.add(LatestTag, ref.Range, "image %s has the tag latest: use a version", ref.Text)
		}
	}
}

func (m *Machine) warnFiles(r *report) {
	kinds := map[string]string{}
	for _, f := range m.Files.V {
		path, kind := f.V.Path.V.clean, f.V.kind()
		if before, ok := kinds[path]; ok && before != kind {
			r.add(FileConflict, f.At, "%s is written as a %s here and as a %s before", path, kind, before)
		}
		kinds[path] = kind
		for _, dir := range contract.TemporaryDirectories() {
			if strings.HasPrefix(path, dir+"/") {
				r.add(FileHidden, f.At, "%s is hidden by the temporary filesystem that the machine mounts on /%s", path, dir)
			}
		}
	}
}

// warnContainer warns of what its image makes of a container. All is the container with the label applied.
func (p *planner) warnContainer(s section, own, all container, image ocispec.ImageConfig) {
	where := s.title(own)
	at, name := own.Image.At, own.Image.V.text
	warn := func(rule string, at Range, format string, args ...any) {
		p.add(rule, at, "%s %s", where, fmt.Sprintf(format, args...))
	}
	if s.name == contract.Services && hasAll(all.Capabilities) && !all.limited() {
		warn(AllCapabilities, cmp.Or(own.Capabilities.At, own.CapabilitiesAdd.At, at), "has all capabilities and no limit: list those that it needs, or make it readonly")
	}
	if user, _, _ := strings.Cut(image.User, ":"); user != "" && user != "root" && user != "0" && !all.UID.set() {
		warn(UserIgnored, at, "runs as root: USER %s of image %s has no effect, uid and gid have", image.User, name)
	}
	if own.Env.set() && hasPath(image.Env) && !hasPath(plain(own.Env)) {
		warn(PathLost, own.Env.At, "has no PATH: env replaces the environment of image %s", name)
	}
	if all.Hostname.V != "" && !all.Uts.V.own() {
		warn(HostnameShared, cmp.Or(own.Hostname.At, at), "does not start with a hostname in the UTS namespace of the machine: add uts: new")
	}
	if len(all.Command.V) == 0 && (all.Command.set() || len(image.Entrypoint)+len(image.Cmd) == 0) {
		warn(NoCommand, cmp.Or(own.Command.At, at), "has nothing to run: add a command")
	}
}

// limited tells whether something but capabilities keeps the processes of a container in bounds.
func (c *container) limited() bool {
	return c.Readonly.V || c.NoNewPrivileges.V || c.Resources.set() || c.Userns.V.own()
}

// hasPath tells whether an environment has a PATH.
func hasPath(env []string) bool {
	return slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "PATH=") })
}
