package sbom

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/package-url/packageurl-go"
	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/common"
	spdx "github.com/spdx/tools-golang/spdx/v2/v2_3"
)

// PredicateType is the type of in-toto statements whose predicate is an SPDX
// document.
const PredicateType = "https://spdx.dev/Document"

const noAssertion = "NOASSERTION"

// A Machine describes a machine. Together with the scans of its images, it is the
// input of the SBOM.
type Machine struct {
	Name       string      `json:"name"`
	Platform   string      `json:"platform"`
	Epoch      int64       `json:"epoch"` // SOURCE_DATE_EPOCH, in seconds
	Components []Component `json:"components"`
}

// A Component is a package image at its place in the machine.
type Component struct {
	Name   string `json:"name"`
	Image  string `json:"image"`            // familiar reference, or @pkg:PATH
	URL    string `json:"url,omitempty"`    // package URL of the image
	Digest string `json:"digest,omitempty"` // of manifest or index
	Scan   string `json:"scan,omitempty"`   // folder with the output of a scanner; empty if none ran
}

// ImageURL returns the package URL of an image in a registry (purl specification,
// type oci). The tag is optional.
func ImageURL(repository, tag, digest string) string {
	name := repository[strings.LastIndexByte(repository, '/')+1:]
	qualifiers := map[string]string{"repository_url": repository}
	if tag != "" {
		qualifiers["tag"] = tag
	}
	return packageurl.NewPackageURL(packageurl.TypeOCI, "", strings.ToLower(name), digest, packageurl.QualifiersFromMap(qualifiers), "").ToString()
}

// A document is an SPDX 2.3 document under construction.
type document struct {
	spdx.Document
	ids map[common.ElementID]int // how often element made each
}

func newDocument(name string, epoch int64) *document {
	return &document{ids: map[common.ElementID]int{}, Document: spdx.Document{
		SPDXVersion:    spdx.Version,
		DataLicense:    spdx.DataLicense,
		SPDXIdentifier: "DOCUMENT",
		DocumentName:   name,
		CreationInfo: &spdx.CreationInfo{
			Creators: []common.Creator{{CreatorType: "Tool", Creator: "slipway-sbom"}},
			Created:  time.Unix(epoch, 0).UTC().Format(time.RFC3339),
		},
	}}
}

func (d *document) relate(from common.ElementID, kind string, to common.ElementID) {
	d.Relationships = append(d.Relationships, &spdx.Relationship{
		RefA: common.DocElementID{ElementRefID: from}, Relationship: kind, RefB: common.DocElementID{ElementRefID: to},
	})
}

func (d *document) add(id common.ElementID, name, version, url, comment string) *spdx.Package {
	p := &spdx.Package{
		PackageSPDXIdentifier:     id,
		PackageName:               name,
		PackageVersion:            version,
		PackageComment:            comment,
		PackageDownloadLocation:   noAssertion,
		PackageLicenseConcluded:   noAssertion,
		PackageLicenseDeclared:    noAssertion,
		PackageCopyrightText:      noAssertion,
		IsFilesAnalyzedTagPresent: true,
	}
	if url != "" {
		p.PackageExternalReferences = []*spdx.PackageExternalReference{{Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: url}}
	}
	d.Packages = append(d.Packages, p)
	return p
}

// encode returns the document as JSON. Its namespace is the hash of its contents,
// so that the same contents always have the same name.
func (d *document) encode() ([]byte, error) {
	var out bytes.Buffer
	if err := spdxjson.Write(&d.Document, &out); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(out.Bytes())
	d.DocumentNamespace = "https://github.com/slipway-build/slipway/spdx/" + hex.EncodeToString(sum[:])
	out.Reset()
	if err := spdxjson.Write(&d.Document, &out, spdxjson.Indent("  ")); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// A statement is an in-toto statement. A scanner writes each to a file of its own
// (BuildKit's SBOM scanning protocol).
type statement struct {
	Type          string          `json:"_type"`
	PredicateType string          `json:"predicateType"`
	Subject       []any           `json:"subject"`
	Predicate     json.RawMessage `json:"predicate"`
}

// Statement returns the statement of a scanner that found the packages. The epoch
// is the creation time, in seconds since 1970.
func Statement(packages []Package, epoch int64) ([]byte, error) {
	d := newDocument("image", epoch)
	for _, p := range packages {
		sum := sha256.Sum256([]byte(p.URL))
		id := d.element("Package", p.Name, hex.EncodeToString(sum[:6]))
		d.add(id, p.Name, p.Version, p.URL, "").PackageSourceInfo = "found in " + p.Source
		d.relate("DOCUMENT", common.TypeRelationshipDescribe, id)
	}
	predicate, err := d.encode()
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent(statement{"https://in-toto.io/Statement/v0.1", PredicateType, []any{}, predicate}, "", "  ")
}

var notInID = regexp.MustCompile(`[^a-zA-Z0-9.-]+`)

// element returns a new SPDX identifier from parts of a name.
func (d *document) element(parts ...string) common.ElementID {
	for i, part := range parts {
		parts[i] = strings.Trim(notInID.ReplaceAllString(part, "-"), "-")
	}
	id := common.ElementID(strings.Join(parts, "-"))
	d.ids[id]++
	if n := d.ids[id]; n > 1 {
		return d.element(string(id), strconv.Itoa(n))
	}
	return id
}

// Document returns the SPDX document of a machine. The machine CONTAINS its
// components, and each component CONTAINS the packages that a scanner found in it.
func (m Machine) Document() ([]byte, error) {
	d := newDocument(m.Name, m.Epoch)
	top := d.add("Machine", m.Name, "", "", "a machine for "+m.Platform)
	top.PrimaryPackagePurpose = "OPERATING-SYSTEM"
	d.relate("DOCUMENT", common.TypeRelationshipDescribe, "Machine")
	for _, c := range m.Components {
		id := d.element("Component", c.Name)
		p := d.add(id, c.Image, c.Digest, c.URL, c.Name)
		p.PrimaryPackagePurpose = "CONTAINER"
		if algorithm, hex, ok := strings.Cut(c.Digest, ":"); ok && algorithm == "sha256" {
			p.PackageChecksums = []common.Checksum{{Algorithm: common.SHA256, Value: hex}}
		}
		d.relate("Machine", common.TypeRelationshipContains, id)
		if c.Scan == "" {
			continue
		}
		if err := d.include(c.Name, id, c.Scan); err != nil {
			return nil, fmt.Errorf("%s: %w", c.Name, err)
		}
	}
	return d.encode()
}

// include adds the packages of a scanner's documents, and their relationships, to
// a component.
func (d *document) include(name string, component common.ElementID, dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	found := false
	for i, f := range files {
		data, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return err
		}
		var s statement
		if err := json.Unmarshal(data, &s); err != nil {
			return fmt.Errorf("scanner output %s: %w", f.Name(), err)
		}
		if s.PredicateType != PredicateType {
			continue
		}
		found = true
		scanned, err := spdxjson.Read(bytes.NewReader(s.Predicate))
		if err != nil {
			return fmt.Errorf("scanner output %s: %w", f.Name(), err)
		}
		prefix := name
		if i > 0 {
			prefix = fmt.Sprintf("%s-%d", name, i)
		}
		d.merge(prefix, component, scanned)
	}
	if !found {
		return errors.New("the scanner wrote no SPDX document")
	}
	return nil
}

// merge adds the packages of a scanned document, and their relationships, to a
// component. Identifiers get the prefix.
func (d *document) merge(prefix string, component common.ElementID, scanned *spdx.Document) {
	packages := slices.Clone(scanned.Packages)
	slices.SortFunc(packages, func(a, b *spdx.Package) int { return cmp.Compare(a.PackageSPDXIdentifier, b.PackageSPDXIdentifier) })
	ids := map[common.ElementID]common.ElementID{}
	for _, p := range packages {
		id := d.element(prefix, string(p.PackageSPDXIdentifier))
		ids[p.PackageSPDXIdentifier] = id
		p.PackageSPDXIdentifier = id
		p.Files = nil
		p.FilesAnalyzed, p.IsFilesAnalyzedTagPresent, p.PackageVerificationCode = false, true, nil
		d.Packages = append(d.Packages, p)
		d.relate(component, common.TypeRelationshipContains, id)
	}
	relations := slices.Clone(scanned.Relationships)
	slices.SortFunc(relations, func(a, b *spdx.Relationship) int {
		return cmp.Or(cmp.Compare(a.RefA.ElementRefID, b.RefA.ElementRefID), cmp.Compare(a.Relationship, b.Relationship), cmp.Compare(a.RefB.ElementRefID, b.RefB.ElementRefID))
	})
	for _, r := range relations {
		from, ok := ids[r.RefA.ElementRefID]
		to, known := ids[r.RefB.ElementRefID]
		if ok && known {
			d.relate(from, r.Relationship, to)
		}
	}
	d.OtherLicenses = append(d.OtherLicenses, scanned.OtherLicenses...)
}
