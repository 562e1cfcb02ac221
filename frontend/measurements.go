package frontend

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/moby/buildkit/frontend/gateway/client"

	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/exporter/measure"
)

// answerMeasurements writes the machine in the format of --target, and returns what
// the exporter predicts for it.
func (r *request) answerMeasurements(ctx context.Context) (*client.Result, error) {
	b, err := r.newBuild(ctx)
	if err != nil {
		return nil, err
	}
	if len(b.options.formats) != 1 || !b.options.formats[0].Options.Has(format.PCRs) {
		var names []string
		for _, f := range format.All() {
			if f.Options.Has(format.PCRs) {
				names = append(names, f.Name)
			}
		}
		return nil, fmt.Errorf("--target: --call=machine.measurements needs one format whose measurements are known: %s", strings.Join(names, ", "))
	}
	b.options.pcrs = true
	state, parts, err := b.output(ctx, r.platform(), true)
	if err != nil {
		return nil, err
	}
	ref, err := r.evaluate(ctx, state, parts.imports...)
	if err != nil {
		return nil, r.sources.locateSize(err, parts.input.Plan)
	}
	data, err := ref.ReadFile(ctx, client.ReadRequest{Filename: b.options.name + format.PCRsSuffix})
	if err != nil {
		return nil, err
	}
	var m measure.Measurements
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("predicted measurements: %w", err)
	}
	var text bytes.Buffer
	if err := m.WriteText(&text); err != nil {
		return nil, err
	}
	return subrequestResult(data, text.Bytes(), "1.0.0")
}
