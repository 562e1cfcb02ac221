package frontend

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"

	"github.com/slipway-build/slipway/machine"
)

// The contexts that hold the sources of files.
const (
	buildContext = "context" // the build context
	hostContext  = "host"    // the named context for absolute paths
)

// sourceFiles are the files that a machine takes from build contexts.
type sourceFiles struct {
	contexts map[string]llb.State
	paths    map[string]string // by source, as the YAML names it: CONTEXT/PATH
}

// findSources finds the sources of files before anything is built. It returns
// the machine without the optional files that do not exist.
func (r *request) findSources(ctx context.Context, m *machine.Machine) (*machine.Machine, *sourceFiles, error) {
	found := &sourceFiles{contexts: map[string]llb.State{}, paths: map[string]string{}}
	missing := map[string]bool{}
	follow := map[string][]string{} // by context
	for _, s := range m.Sources() {
		name, file, err := r.splitSource(s.Source)
		switch _, known := found.paths[s.Source]; {
		case err != nil && s.Optional:
			missing[s.Source] = true
		case err != nil:
			return nil, nil, err
		case !known:
			found.paths[s.Source] = path.Join(name, file)
			follow[name] = append(follow[name], file)
		}
	}
	refs := map[string]client.Reference{}
	for name, paths := range follow {
		st, err := r.loadContext(ctx, name, paths)
		if err != nil {
			return nil, nil, err
		}
		found.contexts[name] = *st
		if refs[name], err = r.solve(ctx, *st); err != nil {
			return nil, nil, err
		}
	}

	var diags machine.Diagnostics
	for _, s := range m.Sources() {
		if missing[s.Source] {
			continue
		}
		name, file, _ := strings.Cut(found.paths[s.Source], "/")
		stat, err := refs[name].StatFile(ctx, client.StatRequest{Path: file})
		switch {
		case err != nil && !isNotFound(err):
			return nil, nil, fmt.Errorf("look for %s: %w", file, err)
		case err != nil && s.Optional:
			missing[s.Source] = true
		case err != nil:
			diags = append(diags, r.sources.errorAt(s.Range, "source %q of file %q is not in %s", file, s.Path, contextHint(name)))
		case stat.IsDir():
			diags = append(diags, r.sources.errorAt(s.Range, "source %q of file %q is a directory; name a file", file, s.Path))
		}
	}
	return m.WithoutSources(missing), found, sorted(diags)
}

// contextHint describes a context to a user whose file is not in it.
func contextHint(name string) string {
	if name == hostContext {
		return "the build context host"
	}
	return "the build context; paths are relative to it, and .dockerignore may exclude files"
}

// outsideSources returns a warning for each optional file whose source is in no
// build context.
func (r *request) outsideSources(m *machine.Machine) machine.Diagnostics {
	var diags machine.Diagnostics
	for _, s := range m.Sources() {
		if _, _, err := r.splitSource(s.Source); err != nil && s.Optional {
			d := r.sources.errorAt(s.Range, "file %q is left out: %v", s.Path, err)
			d.Rule = machine.SourceOutside
			diags = append(diags, d)
		}
	}
	return diags
}

// splitSource returns the context of a source and the path in it.
func (r *request) splitSource(source string) (name, file string, err error) {
	absolute, arguments := source, "--build-context host=/"
	if rest, ok := strings.CutPrefix(source, "~/"); ok {
		absolute = path.Join("/", r.ui.BuildArgs["HOME"], rest)
		arguments += " --build-arg HOME"
	}
	if !path.IsAbs(absolute) {
		file = path.Clean(source)
		if file == ".." || strings.HasPrefix(file, "../") {
			return "", "", fmt.Errorf("source %q is outside of the build context: copy it into the context, or use a context that contains it", source)
		}
		return buildContext, file, nil
	}
	_, host := r.ui.BuildOpts().Opts["context:"+hostContext]
	if !host || absolute != source && r.ui.BuildArgs["HOME"] == "" {
		return "", "", fmt.Errorf("source %q is outside of the build context: copy it into the context and use a relative path, or pass %s",
			source, arguments)
	}
	return hostContext, strings.TrimPrefix(path.Clean(absolute), "/"), nil
}

// loadContext returns the part of a context that holds the paths.
func (r *request) loadContext(ctx context.Context, name string, paths []string) (*llb.State, error) {
	if name == buildContext {
		return r.ui.MainContext(ctx, llb.FollowPaths(paths))
	}
	nc, err := r.ui.NamedContext(name, dockerui.ContextOpt{
		NoDockerignore: true,
		AsyncLocalOpts: func() []llb.LocalOption { return []llb.LocalOption{llb.FollowPaths(paths)} },
	})
	if err != nil {
		return nil, err
	}
	st, _, err := loadNamed(ctx, nc)
	return st, err
}

// sessionState returns a state that only this session has, for machines with
// secrets and for signed ones: BuildKit exports nothing that depends on it to a
// cache.
func (r *request) sessionState(ctx context.Context, plan *machine.Plan, sign bool) (llb.State, error) {
	i := slices.IndexFunc(plan.Files, func(f machine.Entry) bool { return f.Secret != "" })
	if i < 0 && !sign {
		return llb.Scratch(), nil
	}
	st, err := r.ui.MainContext(ctx, llb.FollowPaths([]string{".slipway"})) // need not exist
	if err != nil {
		return llb.State{}, err
	}
	def, err := st.Marshal(ctx)
	if err != nil {
		return llb.State{}, err
	}
	for _, data := range def.Def {
		var op pb.Op
		if err := op.UnmarshalVT(data); err != nil {
			return llb.State{}, err
		}
		if strings.HasPrefix(op.GetSource().GetIdentifier(), "local://") {
			return *st, nil
		}
	}
	if i < 0 {
		return llb.State{}, errors.New("--build-arg SIGN requires a build context on the client: with a remote one, a later build could find the signatures of another key in the cache")
	}
	return llb.State{}, machine.Diagnostics{r.sources.errorAt(plan.Files[i].Range,
		"secrets require a build context on the client: with a remote one, exported caches would contain them")}
}

// isNotFound reports whether a file does not exist. The gateway transmits the
// text of errors but not their kind.
func isNotFound(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), "no such file or directory")
}
