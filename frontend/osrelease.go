package frontend

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/internal/version"
	graph "github.com/slipway-build/slipway/llb"
	"github.com/slipway-build/slipway/machine"
)

// imageID is the syntax of IMAGE_ID in os-release(5).
var imageID = regexp.MustCompile(`^[a-z0-9._-]+$`)

// osRelease describes the machine in the form of os-release(5).
func (b *build) osRelease(m *resolvedMachine, layouts map[string]graph.ImageLayout) ([]byte, error) {
	id, err := buildID(m, layouts, b.options.epoch)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	release := version.Release()
	fmt.Fprintf(&out, "NAME=\"Slipway\"\nID=slipway\nVERSION_ID=%s\nPRETTY_NAME=\"Slipway %s\"\n", release, release)
	if imageID.MatchString(b.options.name) {
		fmt.Fprintf(&out, "IMAGE_ID=%s\n", b.options.name)
	}
	fmt.Fprintf(&out, "BUILD_ID=%s\n", id)
	if lock := b.images.lock; lock != nil {
		fmt.Fprintf(&out, "SLIPWAY_LOCK=%s\n", lock.sum)
	}
	out.WriteString("HOME_URL=\"https://github.com/slipway-build/slipway\"\n")
	return out.Bytes(), nil
}

// buildID returns 32 hexadecimal digits that identify what the machine is made
// of: the plan, the images and the version of Slipway. Formats, the size of the
// disk, and the contents of files from build contexts and of secrets do not
// change it, nor do comments of the YAML.
func buildID(m *resolvedMachine, layouts map[string]graph.ImageLayout, epoch *int64) (string, error) {
	type source struct {
		Digest digest.Digest
		Config *ocispecs.ImageConfig `json:",omitempty"` // of an image whose digest is unknown
	}
	made := struct {
		Release  string
		Platform string
		Epoch    *int64 `json:",omitempty"`
		Plan     machine.Plan
		Images   map[string]source
	}{version.Release(), platforms.FormatAll(m.platform), epoch, unplaced(m.plan), map[string]source{}}
	for name, i := range m.images {
		s := source{Digest: i.digest}
		if s.Digest == "" {
			s.Config = &i.config.Config.ImageConfig
		}
		made.Images[name] = s
	}
	for name, l := range layouts {
		made.Images[name] = source{Digest: digest.Digest(l.Digest)}
	}
	data, err := json.Marshal(made)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return fmt.Sprintf("%x", sum[:16]), nil
}

// unplaced returns a plan without warnings and positions in the YAML.
func unplaced(plan *machine.Plan) machine.Plan {
	p := *plan
	p.Warnings, p.CmdlineRange = nil, machine.Range{}
	p.Starts = nil // they follow from the rest
	if p.Kernel != nil {
		k := *p.Kernel
		k.Range, k.BinaryRange, k.TarRange = machine.Range{}, machine.Range{}, machine.Range{}
		p.Kernel = &k
	}
	p.Trees = slices.Clone(p.Trees)
	for i := range p.Trees {
		p.Trees[i].Range = machine.Range{}
	}
	p.Layouts = slices.Clone(p.Layouts)
	for i := range p.Layouts {
		p.Layouts[i].Range = machine.Range{}
	}
	return p
}
