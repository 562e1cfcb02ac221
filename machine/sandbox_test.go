package machine_test

import (
	"encoding/json"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/slipway-build/slipway/machine"
)

// The sandbox sets what neither the YAML nor the label sets.
func TestSandbox(t *testing.T) {
	m := parse(t, `
services:
  - {name: plain, image: a, annotations: {build.slipway.sandbox: default}}
  - name: own
    image: a
    capabilities: [none]
    maskedPaths: []
    readonlyPaths: [/proc/sys]
    noNewPrivileges: false
    annotations: {build.slipway.sandbox: default}
  - {name: label, image: b, annotations: {build.slipway.sandbox: default}}
  - {name: added, image: a, capabilities.add: [CAP_SYS_TIME], annotations: {build.slipway.sandbox: default}}
  - {name: none, image: a, annotations: {build.slipway.sandbox: none}}
`)
	p, err := m.Plan(map[string]machine.Image{
		"docker.io/library/a": {Config: ocispec.ImageConfig{Cmd: []string{"run"}}},
		"docker.io/library/b": {Config: ocispec.ImageConfig{
			Cmd:    []string{"run"},
			Labels: map[string]string{machine.Label: `{"capabilities": ["CAP_KILL"], "maskedPaths": ["/proc/kcore"]}`},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	type restrictions struct {
		Capabilities, Masked, Readonly int
		NoNewPrivileges                bool
	}
	got := map[string]restrictions{}
	for _, e := range p.Configs {
		var spec specs.Spec
		if err := json.Unmarshal(e.Contents, &spec); err == nil && spec.Process != nil {
			got[e.Path] = restrictions{len(spec.Process.Capabilities.Bounding), len(spec.Linux.MaskedPaths), len(spec.Linux.ReadonlyPaths), spec.Process.NoNewPrivileges}
		}
	}
	check(t, "restrictions", map[string]restrictions{
		"containers/services/plain/config.json": {14, 12, 6, true},
		"containers/services/own/config.json":   {0, 0, 1, false},
		"containers/services/label/config.json": {1, 1, 6, true},
		"containers/services/added/config.json": {15, 12, 6, true},
		"containers/services/none/config.json":  {},
	}, got)
}
