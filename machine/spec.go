package machine

import (
	"cmp"
	"encoding/json"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/slipway-build/slipway/internal/contract"
)

// specVersion is the version of the OCI runtime specification that config.json follows.
const specVersion = "1.2.1"

// spec gives config.json (OCI runtime specification) of a container to which the label is already applied.
func (p *planner) spec(c *container, image ocispec.ImageConfig) []byte {
	return indented(specs.Spec{
		Version:     specVersion,
		Root:        &specs.Root{Path: contract.Rootfs, Readonly: c.Readonly.V},
		Hostname:    c.Hostname.V,
		Process:     p.process(c, image),
		Mounts:      c.mounts(),
		Annotations: texts(c.Annotations),
		Linux: &specs.Linux{
			UIDMappings:       idMappings(c.UIDMappings),
			GIDMappings:       idMappings(c.GIDMappings),
			Sysctl:            texts(c.Sysctl),
			Resources:         c.resources(),
			CgroupsPath:       c.CgroupsPath.V,
			Namespaces:        c.namespaces(),
			Devices:           c.devices(),
			RootfsPropagation: c.RootfsPropagation.V,
			MaskedPaths:       plain(c.MaskedPaths),
			ReadonlyPaths:     plain(c.ReadonlyPaths),
		},
	})
}

func (p *planner) process(c *container, image ocispec.ImageConfig) *specs.Process {
	uid, _ := p.number(c.UID.V)
	gid, _ := p.number(c.GID.V)
	process := &specs.Process{
		Args:            slices.Concat(image.Entrypoint, image.Cmd),
		Env:             image.Env,
		Cwd:             cmp.Or(c.Cwd.V, image.WorkingDir, "/"),
		User:            specs.User{UID: uid, GID: gid},
		Capabilities:    c.capabilities(),
		NoNewPrivileges: c.NoNewPrivileges.V,
		OOMScoreAdj:     c.OOMScoreAdj.pointer(),
	}
	if c.Command.set() {
		process.Args = plain(c.Command)
	}
	if c.Env.set() {
		process.Env = plain(c.Env)
	}
	for _, g := range c.AdditionalGIDs.V {
		n, _ := p.number(g.V)
		process.User.AdditionalGids = append(process.User.AdditionalGids, n)
	}
	for _, l := range c.Rlimits.V {
		process.Rlimits = append(process.Rlimits, l.V.limit)
	}
	return process
}

// indented gives JSON as LinuxKit writes it.
func indented(v any) []byte {
	text, err := json.MarshalIndent(v, "", "    ")
	if err != nil {
		panic(err) // the types of this package and of the specification can all be written
	}
	return text
}
