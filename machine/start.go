package machine

import (
	"cmp"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/schema"
)

// A Start is what must be true of the files of a machine so that a container can
// start. Only the images know whether it is.
type Start struct {
	contract.Start
	Range       Range            // of the command, or of the image
	MountRanges map[string]Range // of the mounts by destination, or of the image
}

// start notes what the container in the bundle dir needs, whose image is in tree.
func (p *planner) start(s section, own schema.Decoded[Container], c *Container, spec *specs.Spec, tree string) {
	for _, m := range c.Runtime.Mounts {
		if !path.IsAbs(m.Destination) || strings.HasPrefix(relative(m.Destination), "containers/") {
			return // the init mounts on the files of the container
		}
	}
	image := at(own.Node.Key("image"))
	start := Start{
		Start:       contract.Start{Name: s.component(c), Root: tree, Programs: programs(spec.Process)},
		Range:       cmp.Or(at(own.Node.Key("command")), image),
		MountRanges: map[string]Range{},
	}
	if len(spec.Process.Args) > 0 {
		start.Command = spec.Process.Args[0]
	}
	usual := each(defaultMounts(c.Readonly), func(m specs.Mount) string { return m.Destination })
	for _, m := range spec.Mounts {
		if slices.Contains(usual, m.Destination) {
			continue // every image has these directories
		}
		mount := contract.StartMount{Destination: path.Join("/", m.Destination)}
		if m.Type == "bind" {
			mount.Source = m.Source
		}
		start.Mounts = append(start.Mounts, mount)
		start.MountRanges[mount.Destination] = image
	}
	note := func(key string, i int, destination string) {
		start.MountRanges[path.Join("/", destination)] = cmp.Or(at(own.Node.Key(key).Index(i)), image)
	}
	for i, t := range own.Value.Tmpfs {
		note("tmpfs", i, t.Destination)
	}
	for i, b := range own.Value.BindsAdd {
		note("binds.add", i, b.Destination)
	}
	for i, b := range own.Value.Binds {
		note("binds", i, b.Destination)
	}
	for i := range own.Value.Mounts {
		note("mounts", i, own.Value.Mounts[i].complete().Destination)
	}
	p.plan.Starts = append(p.plan.Starts, start)
}

// programs returns where runc looks for the program of a process.
func programs(process *specs.Process) (files []string) {
	if len(process.Args) == 0 {
		return nil
	}
	name := process.Args[0]
	if strings.Contains(name, "/") {
		if !path.IsAbs(name) {
			name = path.Join(process.Cwd, name)
		}
		return []string{name}
	}
	for _, variable := range process.Env {
		if dirs, ok := strings.CutPrefix(variable, "PATH="); ok {
			files = nil // the last one counts
			for dir := range strings.SplitSeq(dirs, ":") {
				if path.IsAbs(dir) {
					files = append(files, path.Join(dir, name))
				}
			}
		}
	}
	return files
}
