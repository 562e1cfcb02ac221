package machine

import (
	"errors"
	"fmt"
	"strings"

	distref "github.com/distribution/reference"

	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/schema"
	"github.com/slipway-build/slipway/internal/suggest"
)

// packagePrefix starts the reference of an image that is built from a package
// folder.
const packagePrefix = "@pkg:"

// A Reference is the reference of an image.
type Reference struct {
	Text string // as written
	Name string // canonical: docker.io/library/alpine:3.21, with tag and digest as written; @pkg:PATH unchanged
}

// UnmarshalText parses a reference in the form that docker accepts, or @pkg:PATH.
func (r *Reference) UnmarshalText(b []byte) error {
	text := string(b)
	if folder, ok := strings.CutPrefix(text, packagePrefix); ok {
		if folder == "" {
			return errors.New("must name a package folder: @pkg:PATH")
		}
		*r = Reference{text, text}
		return nil
	}
	named, err := distref.ParseNormalizedNamed(text)
	if err != nil || !isHost(distref.Domain(named)) {
		if hint := suggest.Constant(text); hint != "" {
			return errors.New(hint)
		}
		if small, err := distref.ParseNormalizedNamed(strings.ToLower(text)); err == nil {
			return fmt.Errorf("is not a valid image reference: names must be in lower case%s", suggest.Word(distref.FamiliarString(small)))
		}
		return errors.New("is not a valid image reference (for example slipwaybuild/sshd:v1)")
	}
	*r = Reference{text, named.String()}
	return nil
}

// isHost reports whether the first part of a reference is a host name. With
// upper-case letters, it may also be an invalid user name.
func isHost(domain string) bool {
	return domain == strings.ToLower(domain) || strings.ContainsAny(domain, ".:")
}

// Syntax describes the syntax in words and in JSON Schema.
func (Reference) Syntax() (words string, keywords map[string]any) { return "", nil }

// String returns the canonical name.
func (r Reference) String() string { return r.Name }

// An ImageRef is an image that a machine uses.
type ImageRef struct {
	Name    string // as in [Reference]
	Text    string // as in [Reference]
	Range   Range  // of the first use
	Section string // of the first use: the name of its [Tree], or "kernel"
}

// PackageFolder returns the folder in the build context from which the image is
// built, and reports whether there is one.
func (r ImageRef) PackageFolder() (string, bool) { return strings.CutPrefix(r.Name, packagePrefix) }

// ImageRefs returns each image whose config and files the machine needs once,
// in the order of first use: kernel, init, volumes, onboot, onshutdown,
// services. Images of volumes with format oci are in [Plan.Layouts] only.
func (m *Machine) ImageRefs() []ImageRef { return m.references(false) }

// AllImageRefs returns the images of volumes with format oci as well.
func (m *Machine) AllImageRefs() []ImageRef { return m.references(true) }

func (m *Machine) references(layouts bool) []ImageRef {
	var refs []ImageRef
	seen := map[string]bool{}
	add := func(r Reference, node *schema.Node, section string) {
		if r.Name != "" && !seen[r.Name] {
			seen[r.Name] = true
			refs = append(refs, ImageRef{r.Name, r.Text, at(node), section})
		}
	}
	add(m.Kernel.Image, m.node.Key("kernel").Key("image"), "kernel")
	for i, r := range m.Init {
		add(r, m.node.Key("init").Index(i), contract.InitComponent(i))
	}
	for i, v := range m.Volumes {
		if layouts || !v.layout() {
			add(v.Image, m.node.Key("volumes").Index(i).Key("image"), v.component())
		}
	}
	for _, s := range m.sections() {
		for i := range s.containers {
			c := &s.containers[i]
			add(c.Image, s.node.Index(i).Key("image"), s.component(c))
		}
	}
	return refs
}
