// Package report describes images, as slipway inspect prints them, and the
// differences between two.
package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/slipway-build/slipway/exporter/eif"
	"github.com/slipway-build/slipway/exporter/measure"
	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/image"
	"github.com/slipway-build/slipway/internal/sbom"
)

// A Report describes an image. Its JSON form is stable: fields are only added.
type Report struct {
	Name       string            `json:"name"`
	Kind       string            `json:"kind"`
	Size       int64             `json:"size"` // bytes
	Files      []image.File      `json:"files"`
	Partitions []image.Partition `json:"partitions,omitempty"`
	Loaders    []image.Loader    `json:"loaders,omitempty"`
	Kernel     *image.Kernel     `json:"kernel,omitempty"`
	Cmdline    string            `json:"cmdline"`
	Enclave    *eif.Measurements `json:"enclave,omitempty"` // registers
	Root       string            `json:"root,omitempty"`    // kind of root file system
	Verity     *image.Verity     `json:"verity,omitempty"`  // set by Verify
	// Measurements are the registers of a TPM after a boot, set by Verify.
	Measurements *measure.Measurements `json:"measurements,omitempty"`
	Initramfs    []image.Part          `json:"initramfs,omitempty"`
	Components   []image.Size          `json:"components,omitempty"`
	Containers   []Container           `json:"containers,omitempty"`
	Packages     []Package             `json:"packages,omitempty"`
	// MinMemory is an estimate of the least memory in bytes that the machine
	// needs to boot.
	MinMemory int64    `json:"minMemory,omitempty"`
	Warnings  []string `json:"warnings,omitempty"`
}

// A Container is a container of a machine.
type Container struct {
	Section      string   `json:"section"` // "onboot", "onshutdown" or "services"
	Name         string   `json:"name"`
	Args         []string `json:"args,omitempty"`
	User         string   `json:"user"` // UID:GID
	Capabilities []string `json:"capabilities,omitempty"`
	// Mounts are the paths of the machine that the container sees.
	Mounts []Mount `json:"mounts,omitempty"`
	// SharedNamespaces are the namespaces of the machine that the container is in.
	SharedNamespaces []string `json:"sharedNamespaces,omitempty"`
	Readonly         bool     `json:"readonly"`
	Memory           int64    `json:"memory,omitempty"` // limit in bytes
	CPUs             float64  `json:"cpus,omitempty"`   // limit
	PIDs             int64    `json:"pids,omitempty"`   // limit
	NoNewPrivileges  bool     `json:"noNewPrivileges"`
	Seccomp          bool     `json:"seccomp"`
}

// A Mount is a path of the machine in a container.
type Mount struct {
	Source      string `json:"source"`
	Destination string `json:"destination"`
	Readonly    bool   `json:"readonly"`
}

// A Package is installed software.
type Package struct {
	Component string `json:"component"`
	Name      string `json:"name"`
	Version   string `json:"version"`
	URL       string `json:"purl"`
}

// New describes an image. What it cannot read, it reports as warnings.
func New(i *image.Image) *Report {
	r := &Report{
		Name: i.Name, Kind: i.Kind, Size: i.Size, Files: i.Files, Partitions: i.Partitions, Loaders: i.Loaders,
		Kernel: i.Kernel, Cmdline: i.Cmdline, Enclave: i.Enclave, Root: i.RootKind, Initramfs: i.Initramfs, Components: i.Components(),
		MinMemory: i.MinMemory(), Warnings: slices.Clone(i.Warnings),
	}
	r.containers(i.Root)
	r.packages(i.Root)
	return r
}

// Verify adds what must be computed from the whole image: whether its root file
// system belongs to its root hash, and the registers of a TPM after a boot with
// these keys, as [measure.File] takes them.
func (r *Report) Verify(i *image.Image, keys *measure.Keys) {
	if r.Verity = i.Verity(); r.Verity != nil && !r.Verity.Matches {
		r.warn("dm-verity: %s", r.Verity.Error)
	}
	if i.Blocks() == nil || !slices.ContainsFunc(i.Loaders, func(l image.Loader) bool { return l.Firmware == "UEFI" }) {
		return
	}
	m, err := measure.File(i.Blocks(), i.Size, keys)
	switch {
	case err == nil:
		r.Measurements = m
	case keys != nil || !errors.Is(err, measure.ErrUnknown):
		r.warn("measurements: %v", err)
	}
}

func (r *Report) warn(format string, args ...any) {
	r.Warnings = append(r.Warnings, fmt.Sprintf(format, args...))
}

// maxConfig limits config.json, in bytes.
const maxConfig = 4 << 20

// containers reads the configurations of containers.
func (r *Report) containers(root []tree.Entry) {
	for _, e := range root {
		section, name, ok := bundle(e.Path)
		if !ok || e.Type != tree.File {
			continue
		}
		if e.Size > maxConfig {
			r.warn("%q has %d bytes", e.Path, e.Size)
			continue
		}
		data, err := io.ReadAll(io.NewSectionReader(e.ReaderAt(), 0, e.Size))
		if err != nil {
			r.warn("%v", err)
			continue
		}
		var spec specs.Spec
		if err := json.Unmarshal(data, &spec); err != nil {
			r.warn("%q: %v", e.Path, err)
			continue
		}
		r.Containers = append(r.Containers, container(section, name, &spec))
	}
}

// bundle returns the section and the name of the container whose configuration
// has a path.
func bundle(file string) (section, name string, ok bool) {
	dir, base := path.Split(file)
	if base != contract.Config {
		return "", "", false
	}
	component := image.Component(file)
	section, name, ok = strings.Cut(component, "/")
	if !ok || path.Clean(dir) != contract.Bundles(section)+"/"+name {
		return "", "", false
	}
	return section, name, true
}

func container(section, name string, spec *specs.Spec) Container {
	c := Container{Section: section, Name: name}
	if p := spec.Process; p != nil {
		c.Args, c.User, c.NoNewPrivileges = p.Args, fmt.Sprintf("%d:%d", p.User.UID, p.User.GID), p.NoNewPrivileges
		if p.Capabilities != nil {
			c.Capabilities = p.Capabilities.Bounding
		}
	}
	if spec.Root != nil {
		c.Readonly = spec.Root.Readonly
	}
	for _, m := range spec.Mounts {
		if m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind") {
			c.Mounts = append(c.Mounts, Mount{m.Source, m.Destination, slices.Contains(m.Options, "ro")})
		}
	}
	l := spec.Linux
	if l == nil {
		return c
	}
	c.Seccomp = l.Seccomp != nil
	private := map[specs.LinuxNamespaceType]bool{}
	for _, n := range l.Namespaces {
		private[n.Type] = n.Path == ""
	}
	for _, kind := range []specs.LinuxNamespaceType{specs.NetworkNamespace, specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.MountNamespace} {
		if !private[kind] {
			c.SharedNamespaces = append(c.SharedNamespaces, string(kind))
		}
	}
	if res := l.Resources; res != nil {
		if res.Memory != nil && res.Memory.Limit != nil {
			c.Memory = *res.Memory.Limit
		}
		if res.CPU != nil && res.CPU.Quota != nil && res.CPU.Period != nil && *res.CPU.Period > 0 && *res.CPU.Quota > 0 {
			c.CPUs = float64(*res.CPU.Quota) / float64(*res.CPU.Period)
		}
		if res.Pids != nil && res.Pids.Limit != nil {
			c.PIDs = *res.Pids.Limit
		}
	}
	return c
}

// packages lists the software of each component.
func (r *Report) packages(root []tree.Entry) {
	components := map[string][]tree.Entry{}
	for _, e := range root {
		component, file := image.Component(e.Path), e.Path
		if section, name, ok := strings.Cut(component, "/"); ok {
			rest := strings.TrimPrefix(file, contract.Bundles(section)+"/"+name)
			dir, inside, _ := strings.Cut(strings.TrimPrefix(rest, "/"), "/")
			if inside == "" || dir != contract.Lower && dir != contract.Rootfs {
				continue
			}
			file = inside
		}
		e.Path = file
		components[component] = append(components[component], e)
	}
	for _, component := range sortedKeys(components) {
		found, err := sbom.ScanFS(tree.NewFS(components[component]))
		if err != nil {
			r.warn("packages of %s: %v", component, err)
			continue
		}
		for _, p := range found {
			r.Packages = append(r.Packages, Package{component, p.Name, p.Version, p.URL})
		}
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
