package frontend

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"

	"github.com/slipway-build/slipway/machine"
)

// The contexts that the sources of files are in.
const (
	buildContext = "context" // the build context
	hostContext  = "host"    // the named context for absolute paths
)

// files finds the sources of the plan's files in their contexts before
// anything is built. It leaves out optional files that are missing, and writes
// the name of its context before each source.
func (b *builder) files(ctx context.Context, plan *machine.Plan) (map[string]llb.State, error) {
	paths := map[string][]string{}
	origin := make([]string, len(plan.Files))
	files := slices.Clone(plan.Files)
	for i, f := range files {
		if f.Source == "" {
			continue
		}
		name, file, err := b.origin(f.Source)
		if err != nil {
			return nil, err
		}
		origin[i], files[i].Source = name, file
		paths[name] = append(paths[name], file)
	}

	contexts := map[string]llb.State{}
	refs := map[string]client.Reference{}
	for name, follow := range paths {
		st, err := b.load(ctx, name, follow)
		if err != nil {
			return nil, err
		}
		contexts[name] = *st
		if refs[name], err = b.solve(ctx, *st); err != nil {
			return nil, err
		}
	}

	plan.Files = nil
	var mistakes machine.Diagnostics
	for i, f := range files {
		place := "the build context; paths are relative to it, and .dockerignore may hide it"
		if origin[i] == hostContext {
			place = "the build context host"
		}
		if ref := refs[origin[i]]; ref != nil {
			stat, err := ref.StatFile(ctx, client.StatRequest{Path: f.Source})
			switch {
			case err != nil && !isNotFound(err):
				return nil, fmt.Errorf("look for %s: %w", f.Source, err)
			case err != nil && f.Optional:
				continue
			case err != nil:
				mistakes = append(mistakes, b.mistake(f.Range, "source %q of file %q is not in %s", f.Source, f.Path, place))
			case stat.IsDir():
				mistakes = append(mistakes, b.mistake(f.Range, "source %q of file %q is a directory; name a file", f.Source, f.Path))
			}
			f.Source = path.Join(origin[i], f.Source)
		}
		plan.Files = append(plan.Files, f)
	}
	return contexts, sorted(mistakes)
}

// origin tells which context a source is in, and where.
func (b *builder) origin(source string) (name, file string, err error) {
	absolute, arguments := source, "--build-context host=/"
	if rest, ok := strings.CutPrefix(source, "~/"); ok {
		absolute = path.Join("/", b.ui.BuildArgs["HOME"], rest)
		arguments += " --build-arg HOME"
	}
	if !path.IsAbs(absolute) {
		return buildContext, path.Clean(source), nil
	}
	_, host := b.ui.BuildOpts().Opts["context:"+hostContext]
	if !host || absolute != source && b.ui.BuildArgs["HOME"] == "" {
		return "", "", fmt.Errorf("source %q is outside of the build context: copy it there and name it by a relative path, or give %s",
			source, arguments)
	}
	return hostContext, strings.TrimPrefix(path.Clean(absolute), "/"), nil
}

// load gives the part of a context that the paths name.
func (b *builder) load(ctx context.Context, name string, paths []string) (*llb.State, error) {
	if name == buildContext {
		return b.ui.MainContext(ctx, llb.FollowPaths(paths))
	}
	nc, err := b.ui.NamedContext(name, dockerui.ContextOpt{
		NoDockerignore: true,
		AsyncLocalOpts: func() []llb.LocalOption { return []llb.LocalOption{llb.FollowPaths(paths)} },
	})
	if err != nil {
		return nil, err
	}
	st, _, err := nc.Load(ctx)
	return st, err
}

// session gives a state of this session alone, for machines with secrets:
// BuildKit exports nothing to a cache that depends on it.
func (b *builder) session(ctx context.Context, plan *machine.Plan) (llb.State, error) {
	i := slices.IndexFunc(plan.Files, func(f machine.Entry) bool { return f.Secret != "" })
	if i < 0 {
		return llb.Scratch(), nil
	}
	st, err := b.ui.MainContext(ctx, llb.FollowPaths([]string{".slipway"})) // no file needs to be there
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
	return llb.State{}, machine.Diagnostics{b.mistake(plan.Files[i].Range,
		"secrets need a build context on this machine: with another one they would get into exported caches")}
}
