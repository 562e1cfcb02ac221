package client

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/buildkit/client"
	"github.com/tonistiigi/fsutil"

	"github.com/slipway-build/slipway/frontend"
	"github.com/slipway-build/slipway/machine"
)

// hostContext is the named context for sources of files outside of the build
// context.
const hostContext = "host"

// addHost makes the files outside of the build context that the machine YAML
// names available to BuildKit, unless the user passes the context for them.
// BuildKit can read these files alone.
func (o Options) addHost(so *client.SolveOpt) error {
	if _, ok := o.BuildContexts[hostContext]; ok {
		return nil
	}
	home := o.BuildArgs["HOME"]
	if home == "" {
		home, _ = os.UserHomeDir() // if it fails, the frontend says what to pass
	}
	var names []string
	outside := false
	for _, s := range o.sources() {
		name := s.Source
		if rest, ok := strings.CutPrefix(name, "~/"); ok && home != "" {
			name = filepath.Join(home, rest)
			so.FrontendAttrs["build-arg:HOME"] = home
		}
		outside = outside || s.Outside()
		if filepath.IsAbs(name) && isReadable(name) {
			names = append(names, strings.TrimPrefix(filepath.Clean(name), "/"))
		}
	}
	if !outside {
		return nil
	}
	root, err := fsutil.NewFS("/")
	if err != nil {
		return err
	}
	filter := &fsutil.FilterOpt{FollowPaths: names}
	if len(names) == 0 {
		filter.ExcludePatterns = []string{"**"} // without a pattern, the filter hides nothing
	}
	mount := "context:" + hostContext
	if so.LocalMounts[mount], err = fsutil.NewFilterFS(root, filter); err != nil {
		return err
	}
	so.FrontendAttrs["context:"+hostContext] = "local:" + mount
	return nil
}

// sources returns the sources of files in the machine YAML and its overlays.
func (o Options) sources() []machine.FileSource {
	m, _, _ := o.parse() // the frontend reports errors
	return m.Sources()
}

// parse reads the machine YAML, its overlays and what they include, and returns
// their paths. If there is an error, the machine holds what could be read.
func (o Options) parse() (*machine.Machine, []string, error) {
	names := []string{o.File}
	for name := range strings.FieldsFuncSeq(o.BuildArgs["OVERLAYS"], func(c rune) bool { return c == ',' }) {
		names = append(names, filepath.Join(filepath.Dir(o.File), name))
	}
	dir := filepath.Dir(o.File)
	options := machine.Options{Args: o.BuildArgs, Include: func(name string) (machine.Source, error) {
		name = filepath.FromSlash(name)
		names = append(names, filepath.Join(dir, name))
		root, err := os.OpenRoot(dir)
		if err != nil {
			return machine.Source{}, err
		}
		defer root.Close()
		data, err := root.ReadFile(name)
		return machine.Source{Name: filepath.Join(dir, name), Data: data}, err
	}}
	var texts []machine.Source
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		texts = append(texts, machine.Source{Name: name, Data: data})
	}
	m, err := options.Parse(texts...)
	return m, names, err
}

// Inputs returns the paths of the files and folders on this computer that the
// build of a machine reads: the machine YAML, its overlays and its lock, the
// sources of files, package folders, and local folders of named contexts.
func (o Options) Inputs() []string {
	m, paths, _ := o.parse() // the frontend reports errors
	paths = append(paths, frontend.LockName(o.File))
	for _, s := range m.Sources() {
		name := s.Source
		if rest, ok := strings.CutPrefix(name, "~/"); ok {
			home, _ := os.UserHomeDir()
			name = filepath.Join(home, rest)
		} else if !s.Outside() {
			name = filepath.Join(o.Context, name)
		}
		paths = append(paths, name)
	}
	for _, ref := range m.AllImageRefs() {
		if folder, ok := ref.PackageFolder(); ok {
			paths = append(paths, filepath.Join(o.Context, folder))
		}
	}
	for _, value := range o.BuildContexts {
		if path, ok := strings.CutPrefix(value, "oci-layout://"); ok {
			value = path
		}
		if !strings.Contains(value, "://") {
			paths = append(paths, value)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// isReadable reports whether a path names a regular file that this process may
// read. Wildcards, which BuildKit's filters expand, are not readable.
func isReadable(name string) bool {
	if strings.ContainsAny(name, `*?[]^\`) {
		return false
	}
	info, err := os.Stat(name)
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	return f.Close() == nil
}
