package machine

import (
	"errors"
	"fmt"
	"strings"

	distref "github.com/distribution/reference"
)

// packagePrefix begins the reference of an image that is built from a package folder.
const packagePrefix = "@pkg:"

// reference is the reference of an image.
type reference struct{ text, name string }

func (r *reference) parse(text string, _ *Field) error {
	if folder, ok := strings.CutPrefix(text, packagePrefix); ok {
		if folder == "" {
			return errors.New("must name a package folder, as in @pkg:PATH")
		}
		*r = reference{text, text}
		return nil
	}
	named, err := distref.ParseNormalizedNamed(text)
	if err != nil || !isHost(distref.Domain(named)) {
		if small, err := distref.ParseNormalizedNamed(strings.ToLower(text)); err == nil {
			return fmt.Errorf("is not the reference of an image: names have small letters only%s", didYouMean(distref.FamiliarString(small)))
		}
		return errors.New("is not the reference of an image, such as slipwaybuild/sshd:v1")
	}
	*r = reference{text, named.String()}
	return nil
}

// isHost tells whether the first part of a reference is the name of a host and not, with capital letters, that of a user.
func isHost(domain string) bool {
	return domain == strings.ToLower(domain) || strings.ContainsAny(domain, ".:")
}

func (r *reference) schema() schemaNode { return schemaNode{} }

func (r *reference) String() string { return r.name }

// ImageRef is a reference to an image in a machine YAML.
type ImageRef struct {
	Name    string // canonical, as docker.io/library/alpine:3.21, with tag and digest as written; "@pkg:PATH" as it is
	Text    string // as written
	Range   Range  // where it is used first
	Section string // what it is used for first, as Tree.Name; "kernel" for the kernel
}

// ImageRefs gives each image whose config and files the machine needs once, in the order of first use: kernel, init,
// volumes, onboot, onshutdown, services. Images of volumes with format oci are in [Plan.Layouts] only.
func (m *Machine) ImageRefs() []ImageRef { return m.references(false) }

// AllImageRefs gives the images of volumes with format oci as well.
func (m *Machine) AllImageRefs() []ImageRef { return m.references(true) }

func (m *Machine) references(layouts bool) []ImageRef {
	var refs []ImageRef
	seen := map[string]bool{}
	add := func(r value[reference], section string) {
		if r.V.name != "" && !seen[r.V.name] {
			seen[r.V.name] = true
			refs = append(refs, ImageRef{r.V.name, r.V.text, r.At, section})
		}
	}
	add(m.Kernel.V.Image, "kernel")
	for i, r := range m.Init.V {
		add(r, initName(i))
	}
	for _, v := range m.Volumes.V {
		if layouts || !v.V.layout() {
			add(v.V.Image, v.V.component())
		}
	}
	for _, s := range m.sections() {
		for _, c := range s.containers {
			add(c.V.Image, s.component(c.V))
		}
	}
	return refs
}
