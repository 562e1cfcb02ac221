// Package graph describes the build of a machine as a BuildKit graph.
//
// The package is named graph and not llb, like its directory, because every
// program that imports it also imports BuildKit's package llb.
//
// A graph has one vertex for each component, which packs the component's image
// into a segment, and one for each output format, which reads the segments in order.
// BuildKit keys a vertex by the bytes that it reads. If a component changes, its
// pack vertex and the format vertex run again, and nothing else. Each vertex runs
// in a container that contains one program, without network, and with mounts
// that are read-only except for the output.
//
// The functions of this package only create states. They read no files, do
// not depend on the order of calls and never change their arguments.
package graph

import (
	"github.com/moby/buildkit/client/llb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/machine"
)

// Input is what a graph is made of.
type Input struct {
	Plan *machine.Plan

	// Images has the files of images by canonical name.
	Images map[string]Rootfs
	// Layouts has the images that the machine contains as OCI image layouts, by
	// component.
	Layouts map[string]ImageLayout
	// Contexts has the files that [machine.Entry.Source] names, each below the
	// name of its context.
	Contexts map[string]llb.State

	// Tools contains the packer, the exporter and the boot loaders. It is the
	// image of the frontend.
	Tools llb.State
	// Builder is the platform of the worker. Nothing of the machine runs on it.
	Builder ocispecs.Platform
	// Session is a state that no other session has. No exported cache contains
	// vertices whose keys depend on it, nor what depends on these.
	Session llb.State
	// Merge reports whether the builder can merge states without a copy.
	Merge bool

	// PackEntries packs entries, encoded as JSON, into the files of a segment, by
	// name, as slipway-packer does. The compression is as in Options; segments
	// for segment.Tar are not compressed. The graph contains the files, so that
	// no container has to run for entries that need no other files.
	PackEntries func(spec []byte, archive segment.Archive, compression string) (map[string][]byte, error)
	// Location returns the source location of a vertex for error messages.
	Location func(machine.Range) llb.ConstraintsOpt
	// IgnoreCache reports whether a component must be built again.
	IgnoreCache func(component string) bool
	// Label is the prefix of the names of all vertices, for example the platform.
	Label string
}

// Rootfs is where the files of an image come from.
type Rootfs struct {
	State  llb.State // the root filesystem
	Pinned bool      // a digest names State, so its definition is a valid key
	Layers []Blob    // the same files as layers, bottom first; preferred to State if not empty
}

// ImageLayout is an image in the form in which it was published, for some or all
// of its platforms, or unpacked.
type ImageLayout struct {
	Digest string // of the published index or manifest; empty if unknown

	Index Blob
	Blobs []Blob // manifests, configurations and layers

	Unpacked []UnpackedImage // one per platform; Index and Blobs are ignored if there are any
}

// UnpackedImage is an image for one platform.
type UnpackedImage struct {
	Rootfs
	Config []byte // OCI image specification, Image Configuration
}

// Blob is a file in the root directory of a state.
type Blob struct {
	State llb.State
	Name  string
}

// Options are the user's choices for the output.
type Options struct {
	Formats      []format.Format
	Name         string // prefix of the output files
	Size         int64  // of the disk in bytes; 0 for the smallest that fits
	Map          bool   // write a map of the disk
	Reserve      int64  // bytes for additions after the build
	Compression  string // of the segments: an algorithm, or algorithm:level
	Architecture string // of the machine: a GOARCH
	Epoch        *int64 // SOURCE_DATE_EPOCH in seconds; nil for the exporter's default
	Sign         Sign   // for Secure Boot, or an enclave image
	PCRs         bool   // write the registers of a TPM after a boot

	// Role and Instance are the ARN of the role and the ID of the instance that an
	// enclave runs on; both are optional.
	Role, Instance string
}

// Sign is when a machine is signed for Secure Boot.
type Sign string

// Times to sign a machine: never, in the build with the secrets SignKey and
// SignCertificate, and after it, by slipway sign.
const (
	SignNever Sign = ""
	SignNow   Sign = "now"
	SignLater Sign = "later"
)

// The secrets that sign machines for Secure Boot and enclave images, both in PEM.
const (
	SignKey         = "slipway.key"
	SignCertificate = "slipway.crt"
)

// UEFIData is the secret with the keys of the firmware that boots a signed machine,
// as EC2's UefiData. Without it, the registers are those without Secure Boot.
const UEFIData = "slipway.uefi-data"

// Output returns the state whose root directory contains the output files of all
// formats.
func Output(in Input, opt Options) (llb.State, error) {
	parts := map[segment.Archive]parts{}
	var outputs []llb.State
	for _, f := range opt.Formats {
		b := builder{in, opt, f.Segments}
		p, ok := parts[f.Segments]
		if !ok {
			var err error
			if p, err = b.parts(); err != nil {
				return llb.State{}, err
			}
			parts[f.Segments] = p
		}
		output := b.write(f, p)
		if f.Container {
			output = b.unpack(f, output)
		}
		outputs = append(outputs, output)
	}
	return builder{in: in}.gather(outputs), nil
}

// Segments returns the states whose file [segment.FileName] is the part of a
// component in the initramfs, by component.
func Segments(in Input, opt Options) (map[string]llb.State, error) {
	p, err := builder{in, opt, segment.CPIO}.parts()
	if err != nil {
		return nil, err
	}
	states := make(map[string]llb.State, len(p.segments))
	for _, s := range p.segments {
		states[s.component] = s.state
	}
	return states, nil
}

// builder creates the vertices of a machine for formats with one form of
// segments.
type builder struct {
	in      Input
	opt     Options
	archive segment.Archive
}
