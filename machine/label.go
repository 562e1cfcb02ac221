package machine

import (
	"maps"
	"strings"
	"sync"

	"github.com/slipway-build/slipway/internal/contract/policy"
	"github.com/slipway-build/slipway/internal/schema"
)

// Label is the label of an image whose value, JSON or YAML, configures the
// containers that use the image. Its keys are those of [Container] except name
// and image.
const Label = "org.mobyproject.config"

var labelSchema = sync.OnceValue(func() *schema.Type { return schema.Of[Container]().WithoutRequired() })

// readLabel reads the value of a label. Everything in it has the position of
// the image of the container.
func readLabel(r *report, text, where string, image *schema.Node) schema.Decoded[Container] {
	var c schema.Decoded[Container]
	d := r.decoder(where, image.Position().Source)
	d.At = image.Position()
	c.Node = d.Decode([]byte(text), &c.Value, labelSchema())
	return c
}

// withLabel returns a container in which the label of its image applies where
// the YAML does not say otherwise.
func withLabel(own, label schema.Decoded[Container]) schema.Decoded[Container] {
	all := schema.Overlay(label, own)
	all.Value.Capabilities = extended(own.Value.Capabilities, label.Value.Capabilities, label.Value.CapabilitiesAdd, own.Value.CapabilitiesAdd)
	all.Value.Binds = extended(own.Value.Binds, label.Value.Binds, label.Value.BindsAdd, own.Value.BindsAdd)
	all.Value.Annotations = withAnnotations(all.Value.Annotations, label.Value.Annotations)
	return all
}

// withAnnotations adds those annotations of a label that the init follows,
// unless the YAML sets them. The YAML replaces the other ones, as in LinuxKit.
func withAnnotations(annotations, label map[string]string) map[string]string {
	all := maps.Clone(annotations)
	for name, value := range label {
		if _, set := all[name]; !set && strings.HasPrefix(name, policy.Prefix) {
			if all == nil {
				all = map[string]string{}
			}
			all[name] = value
		}
	}
	return all
}

// extended returns a list of the YAML if it is set, else that of the label with
// all additions.
func extended[T any](own []T, others ...[]T) []T {
	if own != nil {
		return own
	}
	var all []T
	for _, l := range others {
		all = append(all, l...)
	}
	return all
}
