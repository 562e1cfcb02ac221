package client

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/buildkit/client"
	"github.com/tonistiigi/fsutil"

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
// The frontend reports errors in them.
func (o Options) sources() []machine.FileSource {
	names := []string{o.File}
	for name := range strings.FieldsFuncSeq(o.BuildArgs["OVERLAYS"], func(c rune) bool { return c == ',' }) {
		names = append(names, filepath.Join(filepath.Dir(o.File), name))
	}
	var texts []machine.Source
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		texts = append(texts, machine.Source{Name: name, Data: data})
	}
	m, _ := machine.Parse(texts...)
	return m.Sources()
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
