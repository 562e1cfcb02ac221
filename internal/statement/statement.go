// Package statement writes in-toto statements about disks: what they were built
// from, and what a TPM measures when they boot.
//
// The predicate is SLSA provenance 1.0 (https://slsa.dev/spec/v1.0/provenance),
// so that other tools can check it. docs/reference/registry.md says what the fields
// contain.
package statement

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/moby/buildkit/util/purl"
	"github.com/opencontainers/go-digest"
	"github.com/package-url/packageurl-go"

	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/exporter/measure"
	"github.com/slipway-build/slipway/internal/version"
)

// Types of in-toto's and SLSA's specifications, and of the build.
const (
	statementType = "https://in-toto.io/Statement/v1"
	PredicateType = "https://slsa.dev/provenance/v1"

	project   = "https://github.com/slipway-build/slipway"
	buildType = project + "/blob/main/docs/reference/registry.md#statements"
)

// TypeMeasurements is the media type of predicted measurements in JSON.
const TypeMeasurements = "application/vnd.slipway.measurements.v1+json"

// A Subject is what a statement is about.
type Subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"` // in hexadecimal, by algorithm
}

// A Build is how disks were built.
type Build struct {
	// YAML and Lock are the files that say what the disks are. The YAML is optional.
	YAML, Lock *File
	Images     map[string]digest.Digest // of the lock, by reference
	Arguments  []string                 // of slipway build, optional
	Measured   []Measured
}

// A File is a file with its content.
type File struct {
	Name    string
	Content []byte
}

// A Measured is a disk with its predicted measurements.
type Measured struct {
	Name         string // of the disk, without its suffix
	Architecture string // as in Go
	*measure.Measurements
}

// resource is a ResourceDescriptor of in-toto.
type resource struct {
	Name        string            `json:"name,omitempty"`
	URI         string            `json:"uri,omitempty"`
	Digest      map[string]string `json:"digest"`
	MediaType   string            `json:"mediaType,omitempty"`
	Annotations map[string]any    `json:"annotations,omitempty"`
}

type provenance struct {
	BuildDefinition struct {
		BuildType          string         `json:"buildType"`
		ExternalParameters map[string]any `json:"externalParameters"`
		Dependencies       []resource     `json:"resolvedDependencies"`
	} `json:"buildDefinition"`
	RunDetails struct {
		Builder struct {
			ID      string            `json:"id"`
			Version map[string]string `json:"version"`
		} `json:"builder"`
		Byproducts []resource `json:"byproducts,omitempty"`
	} `json:"runDetails"`
}

// New returns a statement in JSON. It contains no time, so the same arguments result
// in the same bytes.
func New(subjects []Subject, b Build) ([]byte, error) {
	var p provenance
	p.BuildDefinition.BuildType = buildType
	p.BuildDefinition.ExternalParameters = map[string]any{"lock": b.Lock.Name}
	if b.YAML != nil {
		p.BuildDefinition.ExternalParameters["machine"] = b.YAML.Name
	}
	if len(b.Arguments) > 0 {
		p.BuildDefinition.ExternalParameters["arguments"] = b.Arguments
	}
	for _, f := range []*File{b.YAML, b.Lock} {
		if f != nil {
			p.BuildDefinition.Dependencies = append(p.BuildDefinition.Dependencies, resource{Name: f.Name, Digest: sum(f.Content)})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b.Images)) {
		d := b.Images[name]
		uri, err := purl.RefToPURL(packageurl.TypeDocker, name+"@"+d.String(), nil)
		if err != nil {
			return nil, fmt.Errorf("image %q: %w", name, err)
		}
		p.BuildDefinition.Dependencies = append(p.BuildDefinition.Dependencies, resource{URI: uri, Digest: map[string]string{d.Algorithm().String(): d.Encoded()}})
	}
	p.RunDetails.Builder.ID = project
	p.RunDetails.Builder.Version = map[string]string{"slipway": version.Detailed()}
	for _, m := range b.Measured {
		content, err := m.JSON()
		if err != nil {
			return nil, err
		}
		p.RunDetails.Byproducts = append(p.RunDetails.Byproducts, resource{
			Name: m.FileName(), Digest: sum(content), MediaType: TypeMeasurements,
			Annotations: map[string]any{"architecture": m.Architecture, "secureBoot": m.SecureBoot, "pcrs": m.PCRs},
		})
	}
	return encode(struct {
		Type          string     `json:"_type"`
		Subject       []Subject  `json:"subject"`
		PredicateType string     `json:"predicateType"`
		Predicate     provenance `json:"predicate"`
	}{statementType, subjects, PredicateType, p})
}

// NewSubject returns a subject with a digest of SHA-256.
func NewSubject(name string, sum []byte) Subject {
	return Subject{name, map[string]string{"sha256": hex.EncodeToString(sum)}}
}

// FileName is the name of the file of the measurements.
func (m Measured) FileName() string { return m.Name + format.PCRsSuffix }

// JSON returns the measurements as slipway measurements --json prints them.
func (m Measured) JSON() ([]byte, error) {
	var b bytes.Buffer
	err := m.WriteJSON(&b)
	return b.Bytes(), err
}

func sum(content []byte) map[string]string {
	s := sha256.Sum256(content)
	return map[string]string{"sha256": hex.EncodeToString(s[:])}
}

// encode returns indented JSON.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err
}
