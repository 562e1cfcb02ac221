package frontend

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/gateway/client"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/internal/gatewaytest"
	"github.com/slipway-build/slipway/internal/sbom"
)

const fileWithSBOM = "files:\n  - path: etc/sbom.json\n    metadata: sbom\n"

// described returns what a graph passes to the program that writes the SBOM.
func described(t *testing.T, g solvedGraph) sbom.Machine {
	t.Helper()
	var m sbom.Machine
	if err := json.Unmarshal([]byte(g.mkfiles()["machine.json"]), &m); err != nil {
		t.Fatalf("description of the machine: %v", err)
	}
	return m
}

func TestNoSBOM(t *testing.T) {
	g := newGateway(t, twoImages)
	res := mustBuild(t, g)
	if len(res.Attestations) > 0 || onlyGraph(t, g).exec("/slipway-sbom") != nil {
		t.Error("an SBOM that nobody asked for")
	}
}

// Each platform has its own SBOM, of its own images.
func TestSBOMAttestations(t *testing.T) {
	g := newGateway(t, twoImages+"  - name: again\n    image: slipwaybuild/sshd:v1\n")
	g.Opts["attest:sbom"] = ""
	g.Opts["platform"] = "linux/amd64,linux/arm64"
	res := mustBuild(t, g)
	if len(res.Attestations) != 2 {
		t.Fatalf("attestations %v", res.Attestations)
	}
	refs := map[client.Reference]bool{}
	for p, all := range res.Attestations {
		if len(all) != 1 || all[0].Path != "sbom.spdx.json" || all[0].InToto.PredicateType != sbom.PredicateType || all[0].Ref == nil {
			t.Fatalf("%s: attestation %+v", p, all)
		}
		refs[all[0].Ref] = true
	}
	if len(refs) != 2 {
		t.Error("the platforms share an SBOM")
	}
	var found []string
	for _, graph := range graphs(t, g) {
		if graph.exec("/slipway-sbom machine") == nil {
			continue
		}
		m := described(t, graph)
		found = append(found, m.Platform)
		if m.Name != "aws" || len(m.Components) != 2 {
			t.Errorf("described %+v", m)
		}
		sshd := m.Components[1]
		digest := g.Images["docker.io/slipwaybuild/sshd:v1"].Digest.String()
		if sshd.Name != "services.sshd" || sshd.Image != "slipwaybuild/sshd:v1" || sshd.Digest != digest || !strings.Contains(sshd.URL, "tag=v1") {
			t.Errorf("component %+v", sshd)
		}
		if scans := graph.execs("/slipway-sbom scan"); len(scans) != 2 {
			t.Errorf("%d scans, want one per image", len(scans))
		}
	}
	slices.Sort(found)
	if !slices.Equal(found, []string{"linux/amd64", "linux/arm64"}) {
		t.Errorf("described %q", found)
	}
}

// A machine that holds its SBOM as a file gets the SBOM of all its images in the
// same graph.
func TestSBOMFile(t *testing.T) {
	g := newGateway(t, twoImages+fileWithSBOM)
	mustBuild(t, g)
	graph := onlyGraph(t, g)
	if got := described(t, graph); len(got.Components) != 2 {
		t.Errorf("described %+v", got)
	}
	if entries := graph.mkfiles()["entries.json"]; !strings.Contains(entries, `"source":"sbom/sbom.spdx.json"`) {
		t.Errorf("entries %s", entries)
	}
}

// File and attestation are the same vertex.
func TestSBOMFileAndAttestation(t *testing.T) {
	g := newGateway(t, twoImages+fileWithSBOM)
	g.Opts["attest:sbom"] = ""
	mustBuild(t, g)
	all := graphs(t, g)
	if len(all) != 2 || len(all[0].execs("/slipway-sbom machine")) != 1 || all[0].mkfiles()["machine.json"] != all[1].mkfiles()["machine.json"] {
		t.Error("the SBOMs differ")
	}
}

// An OCI layout in the machine is listed but not scanned.
func TestSBOMOfLayout(t *testing.T) {
	g := newGateway(t, "volumes:\n  - name: images\n    image: slipwaybuild/sshd:v1\n    format: oci\n"+fileWithSBOM)
	mustBuild(t, g)
	graph := onlyGraph(t, g)
	m := described(t, graph)
	if len(m.Components) != 1 || m.Components[0].Digest != g.Images["docker.io/slipwaybuild/sshd:v1"].Digest.String() || m.Components[0].Scan != "" {
		t.Errorf("described %+v", m)
	}
}

func TestSBOMGenerator(t *testing.T) {
	g := newGateway(t, twoImages)
	g.Images["docker.io/test/scanner:latest"] = gatewaytest.NewImage("scanner", ocispecs.ImageConfig{Cmd: []string{"/scan"}})
	g.Opts["attest:sbom"] = "generator=test/scanner"
	mustBuild(t, g)
	all := graphs(t, g)
	if len(all) != 2 || len(all[1].execs("/scan")) != 2 || len(all[1].execs("/slipway-sbom scan")) > 0 {
		t.Error("the machine is not scanned by the generator")
	}

	g = newGateway(t, twoImages)
	g.Opts["attest:sbom"] = "generator=test/nonsuch"
	_, err := Build(t.Context(), g)
	wantError(t, err, "sbom generator docker.io/test/nonsuch:latest: failed to resolve")
}
