// Package artifact stores disks in OCI registries and reads them from there,
// whole or in parts.
//
// A disk is an OCI artifact: an image manifest of the OCI image specification
// 1.1 with the artifact type [TypeDisk]. Its only layer is the disk, cut into
// blocks of 512 KiB, each compressed as one zstd frame (RFC 8878). Because
// frames are independent, any range of the disk can be read with an HTTP range
// request, and blocks in parallel. The frames together are a regular zstd file:
// zstd -d unpacks the layer to the disk.
//
// The config of the manifest is the [Index]: the place and the SHA-256 of each
// block that is not all zeros. The digest of the manifest covers the index, and
// the index covers the blocks, so each block can be verified by itself.
//
// One image index of the artifact type [TypeMachine] has the disks of a machine
// for several architectures and in several formats.
//
// The same disk results in the same bytes, and so in the same digest: there are
// no times and names of hosts in an artifact.
//
// docs/reference/registry.md specifies the format.
package artifact

import (
	"github.com/slipway-build/slipway/publisher/disk"
)

// Artifact and media types.
const (
	TypeMachine = "application/vnd.slipway.machine.v1"         // artifact type of an image index
	TypeDisk    = "application/vnd.slipway.disk.v1"            // artifact type of a manifest
	TypeIndex   = "application/vnd.slipway.disk.index.v1+json" // media type of a config
	TypeData    = "application/vnd.slipway.disk.v1+zstd"       // media type of a layer
)

// Annotations of a manifest and of its descriptor in an image index. All but
// AnnotationLock and AnnotationBootMode are on all disks.
const (
	AnnotationFormat       = "build.slipway.disk.format"       // for example raw
	AnnotationArchitecture = "build.slipway.disk.architecture" // as in Go: amd64 or arm64
	AnnotationBootMode     = "build.slipway.disk.boot-mode"    // of EC2, of raw disks
	AnnotationSize         = "build.slipway.disk.size"         // bytes
	AnnotationContent      = "build.slipway.disk.content"      // [disk.Disk.Digest], with the prefix sha256:
	AnnotationLock         = "build.slipway.lock"              // digest of the lock, with the prefix sha256:

	// AnnotationTitle is the name of the file. Layers have it too, with the
	// suffix .zst.
	AnnotationTitle = "org.opencontainers.image.title"
)

// blockSize is the size of a block in bytes. It is that of EBS, so that the
// digests in the index are those that an upload needs.
const blockSize = disk.BlockSize
