package machine

import (
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/slipway-build/slipway/internal/contract"
)

// A MountPoint is a path in the root filesystem of a container on which
// something is mounted.
type MountPoint struct {
	Path string // without a leading slash
	Type string // TypeDirectory or TypeFile; empty: unknown
}

// mountPoints returns the mount points of a container that its image must
// contain if its root filesystem is read-only, because then nobody can make
// them when it starts. Those below another mount are in another filesystem.
func (p *planner) mountPoints(c *Container) []MountPoint {
	mounts := c.mounts()
	for _, m := range c.Runtime.Mounts {
		if spec := m.spec(); !path.IsAbs(spec.Destination) {
			mounts = append(mounts, spec)
		}
	}
	kinds := map[string]string{}
	for _, m := range mounts {
		kinds[inRoot(m.Destination)] = p.mountType(c, m)
	}
	for _, dir := range c.Runtime.Mkdir {
		if !path.IsAbs(dir) {
			kinds[inRoot(dir)] = TypeDirectory
		}
	}
	delete(kinds, "")
	// The rules for images make these.
	for _, always := range append(contract.SystemDirectories(), "etc/hosts", "etc/resolv.conf") {
		delete(kinds, always)
	}
	var points []MountPoint
	for point, kind := range kinds {
		hidden := slices.ContainsFunc(mounts, func(m specs.Mount) bool {
			dir := inRoot(m.Destination)
			return dir != "" && strings.HasPrefix(point, dir+"/")
		})
		if !hidden {
			points = append(points, MountPoint{point, kind})
		}
	}
	slices.SortFunc(points, func(a, b MountPoint) int { return strings.Compare(a.Path, b.Path) })
	return points
}

// inRoot returns a path without a leading slash, in its shortest form.
func inRoot(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// mountType returns the type of the mount point of a mount: that of the source
// of a bind, as far as the machine YAML says what that is, else a directory.
func (p *planner) mountType(c *Container, m specs.Mount) string {
	if m.Type != "bind" && !slices.Contains(m.Options, "bind") && !slices.Contains(m.Options, "rbind") {
		return TypeDirectory
	}
	source := inRoot(m.Source)
	within := func(dir string) bool { return source == "" || source == dir || strings.HasPrefix(dir, source+"/") }
	if slices.ContainsFunc(append(contract.MountPoints(), contract.SystemDirectories()...), within) {
		return TypeDirectory
	}
	if source == "etc/resolv.conf" || source == "etc/hosts" || source == "dev/console" {
		return TypeFile
	}
	for _, v := range p.Volumes {
		if within(inRoot(merged(string(v.Name)))) {
			return TypeDirectory
		}
	}
	for _, dir := range c.Runtime.Mkdir {
		if path.IsAbs(dir) && within(inRoot(dir)) {
			return TypeDirectory
		}
	}
	for _, f := range p.Files {
		switch {
		case source == f.Path.Clean && f.kind() == "file":
			return TypeFile
		case source == f.Path.Clean && f.kind() != "directory": // a symbolic link
		case within(f.Path.Clean):
			return TypeDirectory
		}
	}
	return ""
}

// addMountPoints adds mount points to the tree of an image, which several
// containers may share.
func (t *Tree) addMountPoints(points []MountPoint) {
	for _, point := range points {
		i := slices.IndexFunc(t.MountPoints, func(m MountPoint) bool { return m.Path == point.Path })
		switch {
		case i < 0:
			t.MountPoints = append(t.MountPoints, point)
		case t.MountPoints[i].Type == "":
			t.MountPoints[i] = point
		}
	}
}
