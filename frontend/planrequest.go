package frontend

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path"
	"strings"
	"text/tabwriter"

	"github.com/docker/go-units"
	"github.com/moby/buildkit/frontend/gateway/client"
	"golang.org/x/sync/errgroup"

	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/printable"
	graph "github.com/slipway-build/slipway/llb"
	"github.com/slipway-build/slipway/machine"
)

// planReport is the answer to --call=machine.plan.
type planReport struct {
	Platform   string          `json:"platform"`
	Args       []planArg       `json:"args,omitempty"`
	Cmdline    string          `json:"cmdline,omitempty"`
	Components []planComponent `json:"components"`
	Containers []planContainer `json:"containers,omitempty"`
	Files      []planFile      `json:"files,omitempty"`
	Warnings   []string        `json:"warnings,omitempty"`
}

// A planArg is an arg of the machine.
type planArg struct {
	Name        string `json:"name"`
	Value       string `json:"value"`
	Given       bool   `json:"given"` // by the build, otherwise the value is the default
	Type        string `json:"type"`
	Description string `json:"description,omitempty"`
}

// A planComponent is a package at its place in the machine.
type planComponent struct {
	Name   string `json:"name"`
	Image  string `json:"image"`
	Digest string `json:"digest,omitempty"`
	Size   int64  `json:"size,omitempty"`  // of its segment of the initrd, in bytes
	Place  string `json:"place,omitempty"` // directory of its files; empty for a kernel
}

// A planContainer is a bundle that the guest runs.
type planContainer struct {
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

// answerPlan describes what the machine consists of. It packs every component.
func (r *request) answerPlan(ctx context.Context) (*client.Result, error) {
	m, err := r.parse(ctx)
	if err != nil {
		return nil, err
	}
	m, files, err := r.findSources(ctx, m)
	if err != nil {
		return nil, err
	}
	images, err := r.newResolver(ctx)
	if err != nil {
		return nil, err
	}
	resolved, err := images.resolveMachine(ctx, m, r.platform())
	if err != nil {
		return nil, err
	}
	report := newPlanReport(resolved, r.lint.filter(resolved.warnings))
	for _, a := range m.ArgValues() {
		report.Args = append(report.Args, planArg{string(a.Name), a.Value, a.Given, a.Kind(), a.Description})
	}
	if err := r.measure(ctx, report.Components, build{req: r, machine: m, files: files, images: images}, resolved); err != nil {
		return nil, err
	}
	data, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return nil, err
	}
	return subrequestResult(data, report.text(), "1.0.0")
}

func newPlanReport(m *resolvedMachine, warnings machine.Diagnostics) planReport {
	plan := m.plan
	out := planReport{Platform: m.platform.OS + "/" + m.platform.Architecture, Cmdline: plan.Cmdline}
	add := func(name, ref, place string) {
		out.Components = append(out.Components, planComponent{Name: name, Image: ref, Digest: m.images[ref].digest.String(), Place: place})
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
	out.Containers = bundles(plan.Configs)
	for _, f := range plan.Files {
		from := f.Source
		if f.Secret != "" {
			from = "secret " + f.Secret
		}
		out.Files = append(out.Files, planFile{path.Join("/", f.Path), f.Type, fmt.Sprintf("%04o", f.Mode), f.UID, f.GID, from})
	}
	for _, w := range warnings {
		out.Warnings = append(out.Warnings, fmt.Sprintf("%s: %s", w.Rule, w))
	}
	return out
}

// measure sets the sizes of the components' segments. It packs them in the same
// way as a build, which then takes them from the cache.
func (r *request) measure(ctx context.Context, components []planComponent, b build, resolved *resolvedMachine) error {
	var err error
	if b.options, err = parseOptions("", r.ui.BuildArgs, r.sources.main().Filename, b.machine.ArgValues()...); err != nil {
		return err
	}
	if b.tools, err = b.images.tools(ctx); err != nil {
		return err
	}
	parts, err := b.prepareGraph(ctx, resolved)
	if err != nil {
		return err
	}
	segments, err := graph.Segments(parts.input, parts.options)
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
			ref, err := r.solve(ctx, st, r.ui.CacheImports...)
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

// bundles pairs the configurations of each container.
func bundles(configs []machine.Entry) []planContainer {
	var out []planContainer
	index := map[string]int{} // by place
	for _, e := range configs {
		place := path.Join("/", path.Dir(e.Path))
		switch path.Base(e.Path) {
		case contract.Config:
			index[place] = len(out)
			out = append(out, planContainer{Place: place, Config: e.Contents})
		case contract.Runtime:
			if i, ok := index[place]; ok {
				out[i].Runtime = e.Contents
			}
		}
	}
	return out
}

// text returns the report for people. Only the JSON has the configurations.
func (p planReport) text() []byte {
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	for i, a := range p.Args {
		if i == 0 {
			fmt.Fprintf(w, "ARG\tVALUE\tTYPE\tDESCRIPTION\n")
		}
		value := fmt.Sprintf("%q", a.Value)
		if !a.Given {
			value += " (default)"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", a.Name, value, a.Type, printable.Line(a.Description))
		if i == len(p.Args)-1 {
			fmt.Fprintln(w)
			_ = w.Flush() // ends the columns of the table; a bytes.Buffer does not fail
		}
	}
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
	_ = w.Flush() // a bytes.Buffer does not fail
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
	return []byte(printable.Lines(strings.TrimRight(out.String(), "\n")) + "\n")
}

// command returns the command line of a container.
func (c planContainer) command() string {
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
