package machine

import (
	"cmp"
	"encoding/json"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/slipway-build/slipway/internal/contract"
)

// specVersion is the version of the OCI runtime specification that config.json
// follows.
const specVersion = "1.2.1"

// spec returns config.json (OCI runtime specification) of a container to which
// the label is already applied.
func (p *planner) spec(c *Container, image ocispec.ImageConfig) *specs.Spec {
	return &specs.Spec{
		Version:     specVersion,
		Root:        &specs.Root{Path: contract.Rootfs, Readonly: c.Readonly},
		Hostname:    c.Hostname,
		Process:     p.process(c, image),
		Mounts:      c.mounts(),
		Annotations: c.Annotations,
		Linux: &specs.Linux{
			UIDMappings:       each(c.UIDMappings, IDMapping.spec),
			GIDMappings:       each(c.GIDMappings, IDMapping.spec),
			Sysctl:            c.Sysctl,
			Resources:         c.resources(),
			CgroupsPath:       c.CgroupsPath,
			Namespaces:        c.namespaces(),
			Devices:           c.devices(),
			RootfsPropagation: c.RootfsPropagation,
			MaskedPaths:       c.MaskedPaths,
			ReadonlyPaths:     c.ReadonlyPaths,
		},
	}
}

func (p *planner) process(c *Container, image ocispec.ImageConfig) *specs.Process {
	uid, _ := p.number(c.UID)
	gid, _ := p.number(c.GID)
	process := &specs.Process{
		Args:            slices.Concat(image.Entrypoint, image.Cmd),
		Env:             image.Env,
		Cwd:             cmp.Or(c.Cwd, image.WorkingDir, "/"),
		User:            specs.User{UID: uid, GID: gid},
		Capabilities:    c.capabilities(),
		NoNewPrivileges: c.NoNewPrivileges,
		OOMScoreAdj:     c.OOMScoreAdj,
		Rlimits:         each(c.Rlimits, Rlimit.spec),
	}
	if c.Command != nil {
		process.Args = c.Command
	}
	if c.Env != nil {
		process.Env = c.Env
	}
	for _, g := range c.AdditionalGIDs {
		n, _ := p.number(g)
		process.User.AdditionalGids = append(process.User.AdditionalGids, n)
	}
	return process
}

// indented returns JSON as LinuxKit writes it.
func indented(v any) []byte {
	text, err := json.MarshalIndent(v, "", "    ")
	if err != nil {
		panic(err) // the types of this package and of the specification can all be encoded
	}
	return text
}
