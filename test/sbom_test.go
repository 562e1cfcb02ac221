package test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/stack"
)

// attested is an in-toto statement about the output of a build.
type attested struct {
	PredicateType string
	Subject       []struct {
		Name   string
		Digest map[string]string
	}
	Predicate json.RawMessage
}

func readStatement(t *testing.T, name string) attested {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var s attested
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// spdxDocument has the fields of an SPDX document that the tests check.
type spdxDocument struct {
	CreationInfo  struct{ Created string }
	Packages      []struct{ SPDXID, Name, VersionInfo, SourceInfo string }
	Relationships []struct{ SpdxElementID, RelationshipType, RelatedSpdxElement string }
}

// has reports whether a component contains a package. An empty version matches
// all versions.
func (d spdxDocument) has(component, name, version string) bool {
	for _, p := range d.Packages {
		if p.Name != name || version != "" && p.VersionInfo != version {
			continue
		}
		for _, r := range d.Relationships {
			if r.RelationshipType == "CONTAINS" && r.SpdxElementID == component && r.RelatedSpdxElement == p.SPDXID {
				return true
			}
		}
	}
	return false
}

func parseSPDX(t *testing.T, data []byte) spdxDocument {
	t.Helper()
	var d spdxDocument
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	validator := stack.File(t, "spdx", "bin", "pyspdxtools")
	name := filepath.Join(t.TempDir(), "machine.spdx.json")
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(validator, "--infile", name).CombinedOutput(); err != nil {
		t.Errorf("SPDX's validator: %v\n%s", err, out)
	}
	return d
}

// The SBOM lists the packages of each component. The provenance lists the
// images.
func TestSBOM(t *testing.T) {
	stack.Require(t)
	app, appDigest := debianImage(t, "app", "1-1")
	data, dataDigest := debianImage(t, "data", "2-1")
	const stored = "example.com/stored:v1" // an OCI layout
	layout := t.TempDir()
	write(t, layout, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
	if _, stderr, err := stack.Buildx(layout, "--provenance=false", "-o", "type=oci,tar=false,dest=layout", "."); err != nil {
		t.Fatal(stderr)
	}
	index, err := os.ReadFile(filepath.Join(layout, "layout", "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var stores struct{ Manifests []struct{ Digest string } }
	if err := json.Unmarshal(index, &stores); err != nil || len(stores.Manifests) != 1 {
		t.Fatalf("%v: %s", err, index)
	}
	storedDigest := stores.Manifests[0].Digest
	dir := machineYAML(t, fmt.Sprintf(`init:
  - slipwaybuild/init:v1
services:
  - name: app
    image: %s
volumes:
  - name: data
    image: %s
  - name: stored
    image: %s
    format: oci
files:
  - path: etc/sbom.json
    metadata: sbom
`, app, data, stored))
	build := func(args ...string) string {
		t.Helper()
		_, stderr, err := stack.Buildx(dir, append(args, "--progress=rawjson", "--build-context="+stored+"=oci-layout://"+filepath.Join(layout, "layout"),
			"--sbom=true", "--provenance=mode=max", "-f", "machine.yml", "--target=tar", "-o", "out", ".")...)
		if err != nil {
			t.Fatal(stderr)
		}
		return stderr
	}
	build("--build-arg=SOURCE_DATE_EPOCH=1700000000")
	out := filepath.Join(dir, "out")

	s := readStatement(t, filepath.Join(out, "sbom.spdx.json"))
	if s.PredicateType != "https://spdx.dev/Document" || len(s.Subject) != 1 || s.Subject[0].Name != "machine.tar" {
		t.Errorf("the statement is %s about %v", s.PredicateType, s.Subject)
	}
	doc := parseSPDX(t, s.Predicate)
	for _, want := range []struct{ component, name, version string }{
		{"SPDXRef-Machine", app, appDigest},
		{"SPDXRef-Machine", data, dataDigest},
		{"SPDXRef-Machine", stored, storedDigest},
		{"SPDXRef-Component-services.app", "app", "1-1"},
		{"SPDXRef-Component-volumes.data", "data", "2-1"},
		{"SPDXRef-Component-init-0", "github.com/opencontainers/runtime-spec", "v1.3.0"},
		{"SPDXRef-Component-init-0", "busybox-static", ""},
	} {
		if !doc.has(want.component, want.name, want.version) {
			t.Errorf("%s does not contain %s %s", want.component, want.name, want.version)
		}
	}
	if doc.CreationInfo.Created != "2023-11-14T22:13:20Z" {
		t.Errorf("created %s", doc.CreationInfo.Created)
	}

	inside := tree(t, filepath.Join(out, "machine.tar"))["etc/sbom.json"]
	var one, other any
	if err := json.Unmarshal(s.Predicate, &one); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(inside), &other); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(one, other) {
		t.Error("the SBOM in the machine differs from that in the output")
	}

	p := readStatement(t, filepath.Join(out, "provenance.json"))
	var provenance struct {
		BuildDefinition struct {
			ResolvedDependencies []struct {
				URI    string
				Digest map[string]string
			}
		}
	}
	if err := json.Unmarshal(p.Predicate, &provenance); err != nil {
		t.Fatal(err)
	}
	sources := map[string]bool{}
	for _, d := range provenance.BuildDefinition.ResolvedDependencies {
		sources["sha256:"+d.Digest["sha256"]] = true
	}
	for _, digest := range []string{appDigest, dataDigest, storedDigest} {
		if !sources[digest] {
			t.Errorf("%s is not among the sources %v", digest, provenance.BuildDefinition.ResolvedDependencies)
		}
	}

	if ran := scanned(t, build()); len(ran) > 0 {
		t.Errorf("an unchanged machine was scanned again: %q", ran)
	}
	debianImage(t, "app", "1-2-"+t.TempDir())
	if ran := scanned(t, build()); !slices.Equal(ran, []string{"services.app"}) {
		t.Errorf("after a change of one service, %q were scanned", ran)
	}
}

// The SBOM of an image is an attestation, also with slipway build.
func TestSBOMOfImage(t *testing.T) {
	stack.Require(t)
	dir := machineYAML(t, "init:\n  - slipwaybuild/rngd:v1\n")
	_, stderr, exit := slipway(t, dir, "build", "--progress=plain", "--sbom", "--format=tar", "-o", "type=oci,name=machine:v1,dest=image.tar", "machine.yml")
	if exit != 0 {
		t.Fatal(stderr)
	}
	found := 0
	for name, text := range tree(t, filepath.Join(dir, "image.tar")) {
		var s attested
		if !strings.HasPrefix(name, "blobs/") || json.Unmarshal([]byte(text), &s) != nil || s.PredicateType != "https://spdx.dev/Document" {
			continue
		}
		found++
		if len(s.Subject) == 0 || s.Subject[0].Digest["sha256"] == "" {
			t.Errorf("the attestation is about %v", s.Subject)
		}
		if doc := parseSPDX(t, s.Predicate); len(doc.Packages) < 2 {
			t.Errorf("the attestation is %s", text)
		}
	}
	if found != 1 {
		t.Errorf("the image has %d SBOMs", found)
	}
}

// A custom scanner scans each component.
func TestSBOMGenerator(t *testing.T) {
	stack.Require(t)
	scanner := t.TempDir()
	write(t, scanner, map[string]string{"Dockerfile": "FROM slipwaybuild/sshd:v1\nCOPY scan /scan\nENTRYPOINT [\"/bin/sh\", \"/scan\"]\n", "scan": `set -eu
cat >"$BUILDKIT_SCAN_DESTINATION/sbom.spdx.json" <<END
{"_type": "https://in-toto.io/Statement/v0.1", "predicateType": "https://spdx.dev/Document", "predicate": {
 "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": "scan", "documentNamespace": "https://example.com/scan",
 "creationInfo": {"creators": ["Tool: test"], "created": "2024-01-01T00:00:00Z"},
 "packages": [{"SPDXID": "SPDXRef-p", "name": "$(cat "$BUILDKIT_SCAN_SOURCE/text")", "versionInfo": "$BUILDKIT_SCAN_level", "downloadLocation": "NOASSERTION", "filesAnalyzed": false}]}}
END
`})
	generator := stack.Registry + "/test/scanner:v1"
	push(t, scanner, generator)
	one, two := stack.Registry+"/test/generator:one", stack.Registry+"/test/generator:two"
	publish(t, one, "one")
	publish(t, two, "two")
	dir := machineYAML(t, "init:\n  - "+one+"\nservices:\n  - name: two\n    image: "+two+"\n")
	_, stderr, err := stack.Buildx(dir, "--progress=plain", "--attest=type=sbom,generator="+generator+",level=7", "-f", "machine.yml", "--target=tar", "-o", "out", ".")
	if err != nil {
		t.Fatal(stderr)
	}
	doc := parseSPDX(t, readStatement(t, filepath.Join(dir, "out", "sbom.spdx.json")).Predicate)
	for component, name := range map[string]string{"SPDXRef-Component-init-0": "one", "SPDXRef-Component-services.two": "two"} {
		if !doc.has(component, name, "7") {
			t.Errorf("%s lacks what the scanner found, %s: %+v", component, name, doc)
		}
	}
}
