package frontend

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// packageFile describes a package in its folder, as in LinuxKit.
const packageFile = "build.yml"

// packageSpec holds the fields of build.yml. Those for naming and publishing the
// image are ignored.
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
func (r *resolver) buildPackage(ctx context.Context, ref machine.ImageRef, p ocispecs.Platform) (image, error) {
	folder, err := r.req.contextPath(strings.TrimPrefix(ref.Name, packageScheme))
	if err != nil {
		return image{}, err
	}
	spec, err := r.req.readPackage(ctx, folder)
	if err != nil {
		return image{}, err
	}
	if len(spec.Arches) > 0 && !slices.Contains(spec.Arches, p.Architecture) {
		return image{}, fmt.Errorf("%s is for %s, not for %s", folder, strings.Join(spec.Arches, ", "), p.Architecture)
	}
	sources, err := r.req.packageSources(ctx, folder, spec.ExtraSources)
	if err != nil {
		return image{}, err
	}
	def, err := sources.Marshal(ctx, llb.WithCaps(r.req.ui.BuildOpts().LLBCaps))
	if err != nil {
		return image{}, err
	}
	res, err := r.req.gateway.Solve(ctx, client.SolveRequest{
		Frontend:       "dockerfile.v0",
		FrontendOpt:    spec.options(p, r.req.ui.IsNoCache(ref.Section)),
		FrontendInputs: map[string]*pb.Definition{"context": def.ToPB(), "dockerfile": def.ToPB()},
		CacheImports:   r.req.ui.CacheImports,
	})
	if err != nil {
		return image{}, err
	}
	out, err := builtImage(res, &spec.Config)
	if err == nil && !runsOn(out.config.Platform, p) {
		err = fmt.Errorf("%s is built for %s instead of %s: remove --platform from the last FROM of its Dockerfile",
			folder, platforms.FormatAll(out.config.Platform), platforms.FormatAll(p))
	}
	return out, err
}

// builtImage returns the image that the Dockerfile frontend built, with the
// config of build.yml as its label.
func builtImage(res *client.Result, config *yaml.Node) (image, error) {
	var out image
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
	if config.IsZero() {
		return out, nil
	}
	label, err := yaml.Marshal(config)
	if err != nil {
		return out, err
	}
	if out.config.Config.Labels == nil {
		out.config.Config.Labels = map[string]string{}
	}
	out.config.Config.Labels[machine.Label] = string(label)
	return out, nil
}

// readPackage reads the description of the package in a folder.
func (r *request) readPackage(ctx context.Context, folder string) (packageSpec, error) {
	name := path.Join(folder, packageFile)
	st, err := r.ui.MainContext(ctx, llb.IncludePatterns([]string{name}))
	if err != nil {
		return packageSpec{}, err
	}
	ref, err := r.solve(ctx, *st)
	if err != nil {
		return packageSpec{}, err
	}
	data, err := ref.ReadFile(ctx, client.ReadRequest{Filename: name})
	if err != nil {
		return packageSpec{}, fmt.Errorf("%s is not in the build context: %w", name, err)
	}
	spec, err := parsePackage(data)
	if err != nil {
		return spec, fmt.Errorf("%s: %w", name, err)
	}
	return spec, nil
}

// contextPath returns the path in the build context of a path that is relative
// to the machine YAML.
func (r *request) contextPath(p string) (string, error) {
	p = path.Join(path.Dir(r.sources.main().Filename), p)
	if path.IsAbs(p) || p == ".." || strings.HasPrefix(p, "../") {
		return "", fmt.Errorf("%s is outside of the build context; use a context that contains it", p)
	}
	return p, nil
}

// packageSources returns the context for the Dockerfile of a package: its folder
// with the extra-sources (FROM:TO) from other folders.
func (r *request) packageSources(ctx context.Context, folder string, extra []string) (llb.State, error) {
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
	st, err := r.ui.MainContext(ctx, llb.IncludePatterns(include))
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

// options returns the options for BuildKit's Dockerfile frontend.
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
