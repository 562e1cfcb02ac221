package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/slipway-build/slipway/exporter/measure"
	"github.com/slipway-build/slipway/internal/statement"
)

// TestStatement checks the fields that verifiers read.
func TestStatement(t *testing.T) {
	disk := newDisk(t, nil)
	s := openDisk(t, disk)
	// The stub of its unified kernel image is not that of systemd.
	if got := measured(s.name, s.architecture, s, s.size, nil); got != nil {
		t.Errorf("an unknown stub has measurements: %+v", got)
	}
	if got := measured("x.iso", "amd64", strings.NewReader("x"), 1, nil); got != nil {
		t.Errorf("a file of one byte has measurements: %+v", got)
	}
	all := []statement.Measured{{Name: "test", Architecture: "amd64", Measurements: new(measure.Measurements)}}
	// The measurements of a build are for the keys of its firmware.
	f := pushFlags{pcrs: []string{filepath.Join(filepath.Dir(disk), "machine.pcrs.json")}}
	built := measure.Measurements{SecureBoot: true, PCRs: map[string]map[string]string{"sha256": {"7": "aa"}}}
	text, err := json.Marshal(built)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.pcrs[0], text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.replace(all, disk); err != nil || all[0].FileName() != "machine.pcrs.json" {
		t.Fatalf("%+v, %v", all[0], err)
	}

	image := digest.FromString("image")
	lock := []byte("version: 1\n")
	b := statement.Build{
		YAML: &statement.File{Name: "aws.yml", Content: []byte("kernel:\n")}, Lock: &statement.File{Name: "aws.lock.yml", Content: lock},
		Images: map[string]digest.Digest{"localhost:5000/sshd:v1": image}, Arguments: []string{"--size", "1G"}, Measured: all,
	}
	var texts []string
	for range 2 {
		text, err := statement.New([]statement.Subject{statement.NewSubject("aws.raw", []byte{1, 2})}, b)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(text))
	}
	if texts[0] != texts[1] {
		t.Error("two statements differ")
	}
	type resource struct {
		Name, URI   string
		Digest      map[string]string
		Annotations struct {
			PCRs       map[string]map[string]string
			SecureBoot bool
		}
	}
	var got struct {
		Type          string `json:"_type"`
		PredicateType string
		Subject       []resource
		Predicate     struct {
			BuildDefinition struct {
				BuildType            string
				ExternalParameters   map[string]any
				ResolvedDependencies []resource
			}
			RunDetails struct{ Byproducts []resource }
		}
	}
	if err := json.Unmarshal([]byte(texts[0]), &got); err != nil {
		t.Fatal(err)
	}
	d := got.Predicate.BuildDefinition
	sum := sha256.Sum256(lock)
	if got.Type != "https://in-toto.io/Statement/v1" || got.PredicateType != "https://slsa.dev/provenance/v1" || got.Subject[0].Digest["sha256"] != "0102" ||
		d.BuildType == "" || d.ExternalParameters["machine"] != "aws.yml" || d.ExternalParameters["lock"] != "aws.lock.yml" ||
		len(d.ResolvedDependencies) != 3 || d.ResolvedDependencies[1].Digest["sha256"] != hex.EncodeToString(sum[:]) ||
		d.ResolvedDependencies[2].Digest["sha256"] != image.Encoded() || !strings.HasPrefix(d.ResolvedDependencies[2].URI, "pkg:docker/localhost:5000/sshd@v1?digest=sha256:") {
		t.Errorf("the statement is %s", texts[0])
	}
	if m := got.Predicate.RunDetails.Byproducts; len(m) != 1 || !m[0].Annotations.SecureBoot || m[0].Annotations.PCRs["sha256"]["7"] != "aa" {
		t.Errorf("the measurements are %+v", m)
	}
}
