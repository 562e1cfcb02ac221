// Package bundle prepares the OCI bundles of a machine to be run: it does what their runtime.json asks for.
package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/contract/runtimejson"
)

// Bundle is a directory with a config.json and, where something has to be prepared, a runtime.json.
type Bundle struct {
	Dir     string // absolute
	Name    string // name of the directory: "000-sysctl", "sshd"
	Runtime runtimejson.Runtime

	prepared bool
}

// Open reads the bundle in dir. A bundle without runtime.json needs no preparation.
func Open(dir string) (*Bundle, error) {
	b := &Bundle{Dir: dir, Name: filepath.Base(dir)}
	file := filepath.Join(dir, contract.Runtime)
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &b.Runtime); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return b, nil
}

// List gives the bundles below dir, sorted by name. There are none if dir does not exist.
func List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var dirs []string
	for _, entry := range entries {
		if entry.IsDir() {
			dirs = append(dirs, filepath.Join(dir, entry.Name()))
		}
	}
	return dirs, err
}

// Spec returns config.json with the path of the root filesystem made absolute, as a runtime needs it that is not started in the bundle, and with
// the filter of system calls that the annotations ask for. All else is kept as it is, known or not.
func (b *Bundle) Spec() ([]byte, error) {
	file := b.config()
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var spec, root map[string]json.RawMessage
	if err := json.Unmarshal(text, &spec); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var path string
	if err := errors.Join(json.Unmarshal(spec["root"], &root), json.Unmarshal(root["path"], &path)); err != nil {
		return nil, fmt.Errorf("%s: root.path: %w", file, err)
	}
	root["path"], _ = json.Marshal(b.abs(path, b.Dir)) // a text always has a JSON form
	if spec["root"], err = json.Marshal(root); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if err := filterCalls(spec, text); err != nil {
		return nil, fmt.Errorf("%s: seccomp: %w", file, err)
	}
	return json.Marshal(spec)
}

func (b *Bundle) config() string { return filepath.Join(b.Dir, contract.Config) }

// Annotations gives those of config.json.
func (b *Bundle) Annotations() (map[string]string, error) {
	text, err := os.ReadFile(b.config())
	if err != nil {
		return nil, err
	}
	var spec struct {
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(text, &spec); err != nil {
		return nil, fmt.Errorf("%s: %w", b.config(), err)
	}
	return spec.Annotations, nil
}

// Materialise gives the directory of a bundle that a runtime can run as it is: the bundle's own, or if its config.json does not say all, one
// below dir with the rest said.
func (b *Bundle) Materialise(dir string) (string, error) {
	annotations, err := b.Annotations()
	if err != nil || !wantsFilter(annotations) {
		return b.Dir, err
	}
	spec, err := b.Spec()
	if err != nil {
		return "", err
	}
	dir = filepath.Join(dir, b.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, contract.Config), spec, 0o600)
}

// Prepare does, in this order, the mounts, directories and cgroups of runtime.json, before the container is created. It does so once: a
// container that is started again finds what it has written.
func (b *Bundle) Prepare() error {
	if b.prepared {
		return nil
	}
	if err := b.prepare(); err != nil {
		return errors.Join(err, b.Release())
	}
	b.prepared = true
	return nil
}

func (b *Bundle) prepare() error {
	for _, m := range b.Runtime.Mounts {
		m.Destination = b.abs(m.Destination, b.root())
		if err := Mount(m); err != nil {
			return err
		}
	}
	for _, dir := range b.Runtime.Mkdir {
		if err := os.MkdirAll(b.abs(dir, b.root()), 0o755); err != nil {
			return err
		}
	}
	for _, cgroup := range b.Runtime.Cgroups {
		if err := MakeCgroup(cgroup); err != nil {
			return err
		}
	}
	return nil
}

// Attaches tells whether [Bundle.Attach] has anything to do.
func (b *Bundle) Attaches() bool {
	for _, path := range b.Runtime.BindNS {
		if path != "" {
			return true
		}
	}
	return len(b.Runtime.Interfaces) > 0
}

// Attach does what needs the created container, whose first process is pid: its interfaces, and the mounts that keep its namespaces.
// Those of a container that ran before are let go.
func (b *Bundle) Attach(pid int) error {
	for _, path := range b.Runtime.BindNS {
		if path != "" {
			letNamespaceGo(path)
		}
	}
	for _, i := range b.Runtime.Interfaces {
		if err := give(i, pid); err != nil {
			return fmt.Errorf("network interface %s: %w", i.Name, err)
		}
	}
	for kind, path := range b.Runtime.BindNS {
		if path == "" {
			continue
		}
		if err := keepNamespace(fmt.Sprintf("/proc/%d/ns/%s", pid, kind), path); err != nil {
			return err
		}
	}
	return nil
}

// Release undoes the mounts of Prepare that lie inside the bundle: the root filesystem and what was written to it. Others are for the machine and stay.
func (b *Bundle) Release() error {
	b.prepared = false
	return UnmountBelow(b.Dir)
}

// root is where every LinuxKit bundle has its root filesystem.
func (b *Bundle) root() string { return filepath.Join(b.Dir, contract.Rootfs) }

func (b *Bundle) abs(path, base string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(base, path)
}
