package client

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/cmd/buildctl/build"
	"github.com/moby/buildkit/solver/pb"
	"github.com/tonistiigi/fsutil"
)

// Options are the options of docker buildx build, with the same syntax.
type Options struct {
	File    string // the machine YAML
	Context string // folder of the build context

	Target        string
	BuildArgs     map[string]string
	BuildContexts map[string]string // by name
	Attests       map[string]string // attributes of sbom and provenance
	CacheFrom     []string
	CacheTo       []string
	NoCache       bool
	NoCacheFilter []string
	Outputs       []string
	Platforms     []string
	Pull          bool
	Secrets       []string
	SSH           []string
}

// solveOpt returns the options for BuildKit's client, except the exports.
func (o Options) solveOpt() (client.SolveOpt, error) {
	context, err := filepath.Abs(o.Context)
	if err != nil {
		return client.SolveOpt{}, err
	}
	so := client.SolveOpt{
		SharedKey:   context,
		LocalMounts: map[string]fsutil.FS{},
		OCIStores:   map[string]content.Store{},
	}
	for name, dir := range map[string]string{"context": context, "dockerfile": filepath.Dir(o.File)} {
		if so.LocalMounts[name], err = fsutil.NewFS(dir); err != nil {
			return so, err
		}
	}
	if so.FrontendAttrs, err = o.attrs(); err != nil {
		return so, err
	}
	for _, typed := range slices.Sorted(maps.Keys(o.BuildContexts)) {
		name, err := contextName(typed)
		if err != nil {
			return so, fmt.Errorf("--build-context %s: %w", typed, err)
		}
		attr := "context:" + name
		if _, ok := so.FrontendAttrs[attr]; ok {
			return so, fmt.Errorf("--build-context %s: another spelling of the name has a value too", typed)
		}
		if so.FrontendAttrs[attr], err = addContext(&so, name, o.BuildContexts[typed]); err != nil {
			return so, fmt.Errorf("--build-context %s: %w", typed, err)
		}
	}
	if err := o.addHost(&so); err != nil {
		return so, err
	}
	if so.CacheImports, err = build.ParseImportCache(expandCaches(o.CacheFrom)); err != nil {
		return so, fmt.Errorf("--cache-from: %w", err)
	}
	if so.CacheExports, err = build.ParseExportCache(expandCaches(o.CacheTo)); err != nil {
		return so, fmt.Errorf("--cache-to: %w", err)
	}
	if so.SourcePolicy, err = sourcePolicy(); err != nil {
		return so, err
	}
	so.Session, err = o.session()
	return so, err
}

// contextName returns the one spelling of a context's name that frontends look
// for: busybox for busybox:latest and docker.io/library/busybox.
func contextName(name string) (string, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(reference.FamiliarString(named), ":latest"), nil
}

// imageResolveMode is the option of frontends that says where images come from:
// from a registry, or from the builder's own store if they are there.
const imageResolveMode = "image-resolve-mode"

// attrs returns the options that the frontend reads, except named contexts.
func (o Options) attrs() (map[string]string, error) {
	attrs := map[string]string{"filename": filepath.Base(o.File)}
	for name, value := range o.BuildArgs {
		attrs["build-arg:"+name] = value
	}
	for name, value := range o.Attests {
		attrs["attest:"+name] = value
	}
	if o.Target != "" {
		attrs["target"] = o.Target
	}
	if len(o.NoCacheFilter) > 0 {
		attrs["no-cache"] = strings.Join(o.NoCacheFilter, ",")
	}
	if o.NoCache {
		attrs["no-cache"] = "" // all components
	}
	if o.Pull {
		attrs[imageResolveMode] = pb.AttrImageResolveModeForcePull
	}
	if len(o.Platforms) > 0 {
		parsed, err := platforms.ParseAll(o.Platforms)
		if err != nil {
			return nil, fmt.Errorf("--platform: %w", err)
		}
		var names []string
		for _, p := range parsed {
			names = append(names, platforms.FormatAll(platforms.Normalize(p)))
		}
		attrs["platform"] = strings.Join(names, ",")
	}
	return attrs, nil
}

// expandCaches adds the type to values that are only an image, as docker buildx
// does.
func expandCaches(values []string) []string {
	out := make([]string, len(values))
	for i, v := range values {
		if !strings.Contains(v, "=") {
			v = "type=registry,ref=" + v
		}
		out[i] = v
	}
	return out
}
