package frontend

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"go.yaml.in/yaml/v4"

	"github.com/slipway-build/slipway/machine"
)

// packageFile is what describes a package in its folder: LinuxKit's build.yml.
const packageFile = "build.yml"

// packageSpec is the part of build.yml that a build in place needs. What names
// and publishes the image has no effect here.
type packageSpec struct {
	Image        string    `yaml:"image"`
	Org          string    `yaml:"org"`
	Tag          string    `yaml:"tag"`
	GitRepo      string    `yaml:"gitrepo"`
	DisableCache bool      `yaml:"disable-cache"`
	Dockerfile   string    `yaml:"dockerfile"`
	Arches       []string  `yaml:"arches"`
	ExtraSources []string  `yaml:"extra-sources"`
	Network      bool      `yaml:"network"`
	Config       yaml.Node `yaml:"config"`
	BuildArgs    []string  `yaml:"buildArgs"`
	Depends      yaml.Node `yaml:"depends"`
}

// buildPackage builds the package folder of an "@pkg:PATH" reference, relative
// to the machine YAML, with BuildKit's Dockerfile frontend.
func (b *builder) buildPackage(ctx context.Context, ref machine.ImageRef, p ocispecs.Platform) (image, error) {
	var out image
	_, rest, _ := strings.Cut(ref.Name, ":")
	folder, err := b.contextPath(rest)
	if err != nil {
		return out, err
	}
	st, err := b.ui.MainContext(ctx, llb.IncludePatterns([]string{path.Join(folder, packageFile)}))
	if err != nil {
		return out, err
	}
	described, err := b.solve(ctx, *st)
	if err != nil {
		return out, err
	}
	data, err := described.ReadFile(ctx, client.ReadRequest{Filename: path.Join(folder, packageFile)})
	if err != nil {
		return out, fmt.Errorf("%s is not in the build context: %w", path.Join(folder, packageFile), err)
	}
	spec, err := parsePackage(data)
	if err != nil {
		return out, fmt.Errorf("%s: %w", path.Join(folder, packageFile), err)
	}
	if len(spec.Arches) > 0 && !slices.Contains(spec.Arches, p.Architecture) {
		return out, fmt.Errorf("%s is for %s, not for %s", folder, strings.Join(spec.Arches, ", "), p.Architecture)
	}

	sources, err := b.packageSources(ctx, folder, spec.ExtraSources)
	if err != nil {
		return out, err
	}
	def, err := sources.Marshal(ctx, llb.WithCaps(b.ui.BuildOpts().LLBCaps))
	if err != nil {
		return out, err
	}
	inputs := map[string]*pb.Definition{"context": def.ToPB(), "dockerfile": def.ToPB()}
	res, err := b.client.Solve(ctx, client.SolveRequest{
		Frontend:       "dockerfile.v0",
		FrontendOpt:    spec.options(p, b.ui.IsNoCache(ref.Section)),
		FrontendInputs: inputs,
		CacheImports:   b.ui.CacheImports,
	})
	if err != nil {
		return out, err
	}
	built, err := res.SingleRef()
	if err != nil {
		return out, err
	}
	if out.state, err = built.ToState(); err != nil {
		return out, err
	}
	if err := json.Unmarshal(res.Metadata[exptypes.ExporterImageConfigKey], &out.config); err != nil {
		return out, fmt.Errorf("read the configuration of the built image: %w", err)
	}
	if !spec.Config.IsZero() {
		label, err := yaml.Marshal(&spec.Config)
		if err != nil {
			return out, err
		}
		out.config.Config.Labels = maps.Clone(out.config.Config.Labels)
		if out.config.Config.Labels == nil {
			out.config.Config.Labels = map[string]string{}
		}
		out.config.Config.Labels[machine.Label] = string(label)
	}
	return out, nil
}

// contextPath makes a path that is relative to the machine YAML one in the build context.
func (b *builder) contextPath(p string) (string, error) {
	p = path.Join(path.Dir(b.yaml().Filename), p)
	if path.IsAbs(p) || p == ".." || strings.HasPrefix(p, "../") {
		return "", fmt.Errorf("%s is outside of the build context; give a context that holds it", p)
	}
	return p, nil
}

// packageSources is the folder as the context of its Dockerfile, with what
// extra-sources (FROM:TO) adds from elsewhere.
func (b *builder) packageSources(ctx context.Context, folder string, extra []string) (llb.State, error) {
	include := []string{folder}
	copies := [][2]string{{folder, "/"}}
	for _, e := range extra {
		from, to, ok := strings.Cut(e, ":")
		from = path.Join(folder, from)
		if !ok || strings.HasPrefix(from, "../") {
			return llb.State{}, fmt.Errorf("extra-sources: %q is not FROM:TO within the build context", e)
		}
		include = append(include, from)
		copies = append(copies, [2]string{from, to})
	}
	st, err := b.ui.MainContext(ctx, llb.IncludePatterns(include))
	if err != nil {
		return llb.State{}, err
	}
	out := llb.Scratch()
	for _, c := range copies {
		out = out.File(llb.Copy(*st, c[0], path.Join("/", c[1]), &llb.CopyInfo{CopyDirContentsOnly: true, CreateDestPath: true}),
			llb.WithCustomName("[internal] copy "+c[0]))
	}
	return out, nil
}

func parsePackage(data []byte) (packageSpec, error) {
	spec := packageSpec{Dockerfile: "Dockerfile"}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&spec); err != nil && !errors.Is(err, io.EOF) {
		return spec, err
	}
	if !spec.Depends.IsZero() {
		return spec, errors.New("depends is not supported: copy from the images in the Dockerfile")
	}
	for _, a := range spec.BuildArgs {
		if !strings.Contains(a, "=") {
			return spec, fmt.Errorf("buildArgs: %q is not NAME=VALUE", a)
		}
	}
	return spec, nil
}

// options are those of BuildKit's Dockerfile frontend.
func (s packageSpec) options(p ocispecs.Platform, noCache bool) map[string]string {
	opts := map[string]string{
		"filename":           s.Dockerfile,
		"platform":           platforms.FormatAll(p),
		"force-network-mode": "none",
	}
	if s.Network {
		delete(opts, "force-network-mode")
	}
	for _, a := range s.BuildArgs {
		name, value, _ := strings.Cut(a, "=")
		opts["build-arg:"+name] = value
	}
	if noCache || s.DisableCache {
		opts["no-cache"] = ""
	}
	return opts
}
