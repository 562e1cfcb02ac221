package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// overlayDir holds what [Bundle.Prepare] lays over read-only root filesystems.
const overlayDir = "/run/init/rootfs"

// points returns the paths below the root filesystem that must exist if it is
// read-only, because then the runtime cannot make them: mount points that are
// not in another mount, and the working directory. It returns nil if the root
// filesystem is writable.
func (b *Bundle) points() ([]string, error) {
	text, err := os.ReadFile(b.config())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var spec struct {
		Root    specs.Root
		Process struct{ Cwd string }
		Mounts  []specs.Mount
	}
	if err := json.Unmarshal(text, &spec); err != nil {
		return nil, fmt.Errorf("%s: %w", b.config(), err)
	}
	if !spec.Root.Readonly {
		return nil, nil
	}
	all := []string{path.Join("/", spec.Process.Cwd)}
	mounts := map[string]bool{}
	for _, m := range spec.Mounts {
		point := path.Join("/", m.Destination)
		mounts[point] = true
		all = append(all, point)
	}
	for _, m := range b.Runtime.Mounts {
		if !filepath.IsAbs(m.Destination) {
			all = append(all, path.Join("/", m.Destination))
		}
	}
	for _, dir := range b.Runtime.Mkdir {
		if !filepath.IsAbs(dir) {
			all = append(all, path.Join("/", dir))
		}
	}
	var points []string
	for _, point := range all {
		hidden := false
		for dir := path.Dir(point); dir != "/" && point != "/"; dir = path.Dir(dir) {
			hidden = hidden || mounts[dir]
		}
		if !hidden {
			points = append(points, point)
		}
	}
	return points, nil
}

// lacks returns the first of the points that the root filesystem does not have,
// or "".
func (b *Bundle) lacks(points []string) (string, error) {
	for _, point := range points {
		file, err := resolve(b.root(), strings.TrimPrefix(point, "/"))
		if err != nil {
			return "", err
		}
		if _, err := os.Lstat(file); err != nil {
			return point, nil
		}
	}
	return "", nil
}

// makePoints lets the runtime make the mount points that a read-only root
// filesystem lacks: it lays an empty filesystem in memory over it. The runtime
// makes the result read-only again before the container starts.
func (b *Bundle) makePoints() error {
	points, err := b.points()
	if err != nil || points == nil {
		return err
	}
	point, err := b.lacks(points)
	if err != nil || point == "" {
		return err
	}
	// Otherwise the mount propagates to the image itself, if that is mounted on
	// itself.
	if err := unix.Mount("", b.root(), "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make %s: private root filesystem: %w", point, err)
	}
	if err := Mount(specs.Mount{Type: "overlay", Source: "overlay", Destination: b.root(), Options: []string{
		"lowerdir=" + b.root(), "upperdir=" + filepath.Join(b.overlay(), "upper"), "workdir=" + filepath.Join(b.overlay(), "work"),
	}}); err != nil {
		return fmt.Errorf("make %s: %w", point, err)
	}
	return nil
}

// overlay is the directory of the upper layer of the root filesystem. Onboot and
// onshutdown containers can have the same name.
func (b *Bundle) overlay() string {
	return filepath.Join(overlayDir, filepath.Base(filepath.Dir(b.Dir)), b.Name)
}
