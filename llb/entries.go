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
	if len(secrets) == 0 && len(contexts) == 0 {
		return b.inlineEntries(component, len(entries), data)
	}

	mounts := []mount{{at: "/spec", state: b.file("entries.json", data), keyedByDefinition: true}}
	if len(secrets) > 0 {
		mounts = append(mounts, mount{at: "/session", state: b.in.Session, keyedByDefinition: true})
	}
	for _, context := range slices.Sorted(maps.Keys(contexts)) {
		mounts = append(mounts, mount{at: path.Join(sourcesPath, context), state: b.in.Contexts[context]})
	}
	return packed{component: component, state: b.run(vertex{
		component: component,
		name:      fmt.Sprintf("pack %d entries", len(entries)),
		program:   packerPath,
		args:      slices.Concat([]string{"entries", "--spec", "/spec/entries.json"}, b.encoding(), []string{"--source", sourcesPath}),
		mounts:    mounts,
		secrets:   secrets,
		opts:      opts,
	})}, nil
}

// inlineEntries returns the segment of entries that need no other files.
func (b builder) inlineEntries(component string, entries int, spec []byte) (packed, error) {
	files, err := b.in.PackEntries(spec, b.archive, b.opt.Compression)
	if err != nil {
		return packed{}, fmt.Errorf("%s: %w", component, err)
	}
	var action *llb.FileAction
	for _, name := range slices.Sorted(maps.Keys(files)) {
		action = action.Mkfile("/"+name, 0o644, files[name])
	}
	state := llb.Scratch().Platform(b.in.Builder).File(action, b.name(component, fmt.Sprintf("generate %d entries", entries)))
	return packed{component: component, state: state, inline: true}, nil
}
