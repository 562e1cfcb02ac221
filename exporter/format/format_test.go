package format

import (
	"maps"
	"slices"
	"testing"

	"github.com/slipway-build/slipway/exporter"
)

// What the frontend offers is what can be written.
func TestTablesAgree(t *testing.T) {
	var offered []string
	for _, f := range exporter.Formats {
		offered = append(offered, f.Name)
	}
	slices.Sort(offered)
	if written := slices.Sorted(maps.Keys(writers)); !slices.Equal(offered, written) {
		t.Errorf("offered: %q, written: %q", offered, written)
	}
}
