// Package bundle prepares the OCI bundles of a machine as their runtime.json
// says.
package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/contract/runtimejson"
)

// Bundle is a directory with a config.json and an optional runtime.json.
type Bundle struct {
	Dir     string // absolute
	Name    string // name of the directory: "000-sysctl", "sshd"
	Runtime runtimejson.Runtime

	prepared bool
}

// Open opens the bundle in dir.
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

// List returns the bundles below dir, sorted by name. There are none if dir
// does not exist.
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

// Spec returns config.json for a runtime that is not started in the bundle: the
// path of the root filesystem is absolute, the seccomp profile that the
// annotations ask for is added, and limits that this process cannot grant are
// lowered. It has the given annotations, unless config.json has others with these
// names. Everything else is unchanged.
func (b *Bundle) Spec(annotations map[string]string) ([]byte, error) {
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
	root["path"], _ = json.Marshal(b.abs(path, b.Dir)) // strings can always be encoded
	if spec["root"], err = json.Marshal(root); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if err := annotate(spec, annotations); err != nil {
		return nil, fmt.Errorf("%s: annotations: %w", file, err)
	}
	if err := addProfile(spec, text); err != nil {
		return nil, fmt.Errorf("%s: seccomp: %w", file, err)
	}
	if err := OwnLimits().apply(spec); err != nil {
		return nil, fmt.Errorf("%s: process: %w", file, err)
	}
	return json.Marshal(spec)
}

// annotate adds annotations to those of a config.json that lack a value there.
func annotate(spec map[string]json.RawMessage, annotations map[string]string) error {
	if len(annotations) == 0 {
		return nil
	}
	all := maps.Clone(annotations)
	if text, ok := spec["annotations"]; ok {
		var own map[string]string
		if err := json.Unmarshal(text, &own); err != nil {
			return err
		}
		for name, value := range own {
			if value != "" || all[name] == "" {
				all[name] = value
			}
		}
	}
	var err error
	spec["annotations"], err = json.Marshal(all)
	return err
}

func (b *Bundle) config() string { return filepath.Join(b.Dir, contract.Config) }

// Annotations returns the annotations in config.json.
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

// Materialize returns a bundle directory that a runtime can run unchanged. That
// is the directory of the bundle itself, unless config.json needs changes; then
// it is a new one below dir.
func (b *Bundle) Materialize(dir string) (string, error) {
	annotations, err := b.Annotations()
	if err != nil {
		return b.Dir, err
	}
	limited, err := OwnLimits().concern(b.config())
	if err != nil || !limited && !wantsProfile(annotations) {
		return b.Dir, err
	}
	spec, err := b.Spec(nil)
	if err != nil {
		return "", err
	}
	dir = filepath.Join(dir, b.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, contract.Config), spec, 0o600)
}

// Prepare does the mounts, then makes the directories and cgroups of
// runtime.json, before the container is created. It makes mount points possible
// that a read-only root filesystem lacks. It does so once, so that a
// restarted container finds what it has written.
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
		var err error
		if m.Destination, err = b.inRootfs(m.Destination); err != nil {
			return err
		}
		if err := Mount(m); err != nil {
			return err
		}
		if m.Destination == b.root() {
			if err := b.makePoints(); err != nil {
				return err
			}
		}
	}
	for _, dir := range b.Runtime.Mkdir {
		dir, err := b.inRootfs(dir)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
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

// Attaches reports whether [Bundle.Attach] has anything to do.
func (b *Bundle) Attaches() bool {
	for _, path := range b.Runtime.BindNS {
		if path != "" {
			return true
		}
	}
	return len(b.Runtime.Interfaces) > 0
}

// Attach adds the interfaces to the created container whose first process is
// pid, and binds its namespaces. It unbinds those of an earlier run.
func (b *Bundle) Attach(pid int) error {
	for _, path := range b.Runtime.BindNS {
		if path != "" {
			unbindNamespace(path)
		}
	}
	for _, i := range b.Runtime.Interfaces {
		if err := addInterface(i, pid); err != nil {
			return fmt.Errorf("network interface %s: %w", i.Name, err)
		}
	}
	for kind, path := range b.Runtime.BindNS {
		if path == "" {
			continue
		}
		if err := bindNamespace(fmt.Sprintf("/proc/%d/ns/%s", pid, kind), path); err != nil {
			return err
		}
	}
	return nil
}

// Release undoes the mounts of Prepare inside the bundle: the root filesystem
// and its changes. Other mounts are part of the machine and stay.
func (b *Bundle) Release() error {
	b.prepared = false
	return errors.Join(UnmountBelow(b.Dir), os.RemoveAll(b.overlay()))
}

// root is where a bundle of LinuxKit has its root filesystem.
func (b *Bundle) root() string { return filepath.Join(b.Dir, contract.Rootfs) }

// inRootfs returns the absolute path for a path of runtime.json, which is
// relative to the root filesystem of the container.
func (b *Bundle) inRootfs(path string) (string, error) {
	if filepath.IsAbs(path) {
		return path, nil
	}
	return resolve(b.root(), path)
}

// maxLinks is how many symbolic links Linux follows in one path (path_resolution(7)).
const maxLinks = 40

// resolve returns the file that path names for a process whose root directory is
// root: the symbolic links, which an image can have anywhere, lead to files below
// root. Parts of the path that do not exist stay as they are.
func resolve(root, path string) (string, error) {
	at, links := "/", 0
	for rest := path; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		next := filepath.Join(at, name)
		target, err := os.Readlink(filepath.Join(root, next))
		if err != nil || name == "" || name == "." || name == ".." {
			at = next // no symbolic link
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("%q below %s: %w", path, root, unix.ELOOP)
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = target + "/" + rest
	}
	return filepath.Join(root, at), nil
}

func (b *Bundle) abs(path, base string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(base, path)
}
