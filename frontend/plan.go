package frontend

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/docker/go-units"
	"github.com/moby/buildkit/frontend/gateway/client"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/internal/contract"
	graph "github.com/slipway-build/slipway/llb"
	"github.com/slipway-build/slipway/machine"
)

// machinePlan is what --call=machine.plan shows.
type machinePlan struct {
	Platform   string      `json:"platform"`
	Cmdline    string      `json:"cmdline,omitempty"`
	Components []component `json:"components"`
	Containers []container `json:"containers,omitempty"`
	Files      []planFile  `json:"files,omitempty"`
	Warnings   []string    `json:"warnings,omitempty"`
}

// component is a package at its place in the machine.
type component struct {
	Name   string `json:"name"`
	Image  string `json:"image"`
	Digest string `json:"digest,omitempty"`
	Size   int64  `json:"size,omitempty"`  // of its part of the initrd, in bytes
	Place  string `json:"place,omitempty"` // of its files; none for a kernel
}

// container is a bundle as the guest runs it. Containers of one image share its files.
type container struct {
	Place   string          `json:"place"`
	Config  json.RawMessage `json:"config"`
	Runtime json.RawMessage `json:"runtime,omitempty"`
}

type planFile struct {
	Path string `json:"path"`
	Type string `json:"type"`
	Mode string `json:"mode"` // octal
	UID  uint32 `json:"uid"`
	GID  uint32 `json:"gid"`
	From string `json:"from,omitempty"`
}

// plan shows what the machine would be made of.
func (b *builder) plan(ctx context.Context) (*client.Result, error) {
	m, err := b.parse()
	if err != nil {
		return nil, err
	}
	p := b.target(nil)
	if len(b.ui.TargetPlatforms) > 0 {
		p = b.target(&b.ui.TargetPlatforms[0])
	}
	plan, images, err := b.planned(ctx, m, p)
	if err != nil {
		return nil, err
	}
	out := machinePlan{Platform: p.OS + "/" + p.Architecture, Cmdline: plan.Cmdline}
	add := func(name, ref, place string) {
		i := images[ref]
		out.Components = append(out.Components, component{Name: name, Image: ref, Digest: i.digest.String(), Place: place})
	}
	if k := plan.Kernel; k != nil {
		add("kernel", k.Image, "")
	}
	for _, t := range plan.Trees {
		add(t.Name, t.Image, path.Join("/", t.Prefix))
	}
	for _, l := range plan.Layouts {
		add(l.Name, l.Image, path.Join("/", l.Prefix))
	}
	if err := b.measure(ctx, out.Components, plan, images, p); err != nil {
		return nil, err
	}
	out.Containers = bundles(plan.Configs)
	for _, f := range plan.Files {
		from := f.Source
		if f.Secret != "" {
			from = "secret " + f.Secret
		}
		out.Files = append(out.Files, planFile{path.Join("/", f.Path), f.Type, fmt.Sprintf("%04o", f.Mode), f.UID, f.GID, from})
	}
	for _, w := range b.lint.wanted(slices.Concat(m.Warnings(), plan.Warnings)) {
		out.Warnings = append(out.Warnings, fmt.Sprintf("%s: %s", w.Rule, w))
	}
	data, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return nil, err
	}
	return result(data, out.text(), "1.0.0"), nil
}

// measure finds the size of every component's segment. They are packed for
// that, as the build will, which then finds them in the cache.
func (b *builder) measure(ctx context.Context, components []component, plan *machine.Plan, images images, p ocispecs.Platform) error {
	opt, err := parseOptions("", b.ui.BuildArgs, b.yaml().Filename)
	if err != nil {
		return err
	}
	tools, err := b.tools(ctx)
	if err != nil {
		return err
	}
	in, choices, err := b.graph(ctx, plan, images, opt, tools, p)
	if err != nil {
		return err
	}
	segments, err := graph.Segments(in, choices)
	if err != nil {
		return err
	}
	eg, ctx := errgroup.WithContext(ctx)
	for i, c := range components {
		st, ok := segments[c.Name]
		if !ok {
			continue // a kernel without modules
		}
		eg.Go(func() error {
			ref, err := b.solve(ctx, st, b.ui.CacheImports...)
			if err != nil {
				return err
			}
			stat, err := ref.StatFile(ctx, client.StatRequest{Path: segment.FileName})
			if err != nil {
				return err
			}
			components[i].Size = stat.Size
			return nil
		})
	}
	return eg.Wait()
}

// bundles gathers the configurations of each container.
func bundles(configs []machine.Entry) []container {
	var out []container
	for _, e := range configs {
		place := path.Join("/", path.Dir(e.Path))
		switch path.Base(e.Path) {
		case contract.Config:
			out = append(out, container{Place: place, Config: e.Contents})
		case contract.Runtime:
			if i := slices.IndexFunc(out, func(c container) bool { return c.Place == place }); i >= 0 {
				out[i].Runtime = e.Contents
			}
		}
	}
	return out
}

// text is the plan for people. The configurations are in the JSON form alone.
func (p machinePlan) text() []byte {
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "COMPONENT\tPLACE\tSIZE\tIMAGE\n")
	for _, c := range p.Components {
		size, image := "", c.Image
		if c.Size > 0 {
			size = units.HumanSize(float64(c.Size))
		}
		if c.Digest != "" {
			image += "@" + c.Digest
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", c.Name, c.Place, size, image)
	}
	_ = w.Flush() // into memory
	for _, c := range p.Containers {
		fmt.Fprintf(&out, "\ncontainer %s: %s", c.Place, c.command())
	}
	if len(p.Containers) > 0 {
		fmt.Fprintln(&out)
	}
	for _, f := range p.Files {
		fmt.Fprintf(&out, "\n%s %s %s %d:%d %s", f.Type, f.Path, f.Mode, f.UID, f.GID, f.From)
	}
	if p.Cmdline != "" {
		fmt.Fprintf(&out, "\ncommand line: %s\n", p.Cmdline)
	}
	for _, warning := range p.Warnings {
		fmt.Fprintf(&out, "\nwarning: %s", warning)
	}
	return append(bytes.TrimRight(out.Bytes(), "\n"), '\n')
}

// command is what a container runs.
func (c container) command() string {
	var spec struct {
		Process struct {
			Args []string `json:"args"`
		} `json:"process"`
	}
	if err := json.Unmarshal(c.Config, &spec); err != nil {
		return err.Error()
	}
	return strings.Join(spec.Process.Args, " ")
}
