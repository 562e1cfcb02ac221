package format

import "github.com/slipway-build/slipway/exporter/segment"

func init() {
	register(Format{
		Name:        "docker",
		Description: "container image with the root filesystem, for --output type=docker, oci or image",
		Suffixes:    []string{".tar"},
		Segments:    segment.Tar,
		Container:   true,
		writer:      tarWriter{},
	})
}
