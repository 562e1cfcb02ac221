package graph

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/client/llb"

	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/machine"
)

// entries packs generated files, files of contexts, and secrets.
func (b builder) entries(component string, entries []machine.Entry) (packed, error) {
	spec := slices.Clone(entries)
	var secrets []llb.RunOption
	var opts []llb.ConstraintsOpt
	contexts := map[string]bool{}
	for i, e := range entries {
		switch {
		case isSecret(e):
			spec[i].Source = path.Join("secrets", strconv.Itoa(i))
			secrets = append(secrets, llb.AddSecret(path.Join(sourcesPath, spec[i].Source), llb.SecretID(e.Secret)))
		case e.Source != "":
			context, _, _ := strings.Cut(e.Source, "/")
			contexts[context] = true
		default:
			continue
		}
		opts = append(opts, b.in.Location(e.Range))
	}
	data, err := json.Marshal(spec)
	if err != nil {
		return packed{}, fmt.Errorf("encode %s: %w", component, err)
	}
	var inline map[string][]byte // the segment of entries that need no other files
	if len(secrets) == 0 && len(contexts) == 0 {
		if inline, err = b.in.PackEntries(data, b.archive, b.opt.Compression); err != nil {
			return packed{}, fmt.Errorf("%s: %w", component, err)
		}
		if size(inline) <= maxInline {
			return b.inlineEntries(component, len(entries), inline), nil
		}
	}
	if len(data) > maxInline {
		if data, err = segment.CompressSpec(data); err != nil {
			return packed{}, fmt.Errorf("compress %s: %w", component, err)
		}
	}
	if inline != nil && size(inline) <= len(data) {
		return b.inlineEntries(component, len(entries), inline), nil
	}
	mounts := []mount{{at: "/spec", state: b.file("entries.json", data), keyedByDefinition: true}}
	if len(secrets) > 0 {
		mounts = append(mounts, mount{at: "/session", state: b.in.Session, keyedByDefinition: true})
	}
	for _, context := range slices.Sorted(maps.Keys(contexts)) {
		mounts = append(mounts, mount{at: path.Join(sourcesPath, context), state: b.in.Contexts[context]})
	}
	args := slices.Concat([]string{"entries", "--spec", "/spec/entries.json"}, b.encoding())
	if inline == nil {
		args = append(args, "--source", sourcesPath) // which does not exist without mounts
	}
	return packed{component: component, state: b.run(vertex{
		component: component,
		name:      fmt.Sprintf("pack %d entries", len(entries)),
		program:   packerPath,
		args:      args,
		mounts:    mounts,
		secrets:   secrets,
		opts:      opts,
	})}, nil
}

// maxInline is how many bytes of files the graph contains for a segment as they
// are. BuildKit accepts a graph of 16 MiB. The spec of a larger segment is
// compressed, and a container packs it, unless the segment is smaller. The
// configurations of 4,000 services take 65 kB compressed.
const maxInline = 2 << 20

func size(files map[string][]byte) int {
	sum := 0
	for _, data := range files {
		sum += len(data)
	}
	return sum
}

// inlineEntries returns a segment whose files the graph contains.
func (b builder) inlineEntries(component string, entries int, files map[string][]byte) packed {
	var action *llb.FileAction
	for _, name := range slices.Sorted(maps.Keys(files)) {
		action = action.Mkfile("/"+name, 0o644, files[name])
	}
	state := llb.Scratch().Platform(b.in.Builder).File(action, b.name(component, fmt.Sprintf("generate %d entries", entries)))
	return packed{component: component, state: state, files: files}
}
