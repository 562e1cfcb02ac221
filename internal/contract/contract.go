// Package contract holds what the build side and the guest agree on, so that
// each fact stands once: where bundles and volumes lie, which directories every
// root filesystem has, how generated entries reach the packer, and how extended
// attributes reach the init. The agreements about single containers are in the
// packages policy (annotations) and runtimejson (runtime.json).
//
// The package imports nothing but the standard library, because the bytes of
// slipway-packer, which links it, are part of the cache key of every segment.
//
// Paths are relative to the root of the machine, without a leading slash, unless
// said otherwise.
package contract

import (
	"fmt"
	"path"
)

// The sections of the machine YAML that hold containers. Each is also the name
// of the directory of its bundles.
const (
	Onboot     = "onboot"
	Onshutdown = "onshutdown"
	Services   = "services"
)

const containers = "containers"

// Volumes is the directory of the volumes, each in a directory of its name.
const Volumes = containers + "/volumes"

// The contents of a bundle.
const (
	Config  = "config.json"  // OCI runtime specification
	Runtime = "runtime.json" // package runtimejson; optional
	Rootfs  = "rootfs"       // where the root filesystem of the container is mounted
)

// The directories of a bundle or volume that are the parts of an overlay mount.
const (
	Lower  = "lower"  // content of the image
	Tmp    = "tmp"    // what is written over it; missing in a read-only one
	Merged = "merged" // where the two are mounted together; volumes only
)

// Bundles returns the directory of the bundles of a section.
func Bundles(section string) string { return path.Join(containers, section) }

// Bundle returns the directory of the bundle of a container. The containers of
// onboot and onshutdown run in the order of their names, so these start with
// their index in the section.
func Bundle(section string, index int, name string) string {
	if section != Services {
		name = fmt.Sprintf("%03d-%s", index, name)
	}
	return path.Join(Bundles(section), name)
}

// StartupMarker is a file at the root of the small initramfs that leads to a
// root filesystem on a disk. It holds the type of that filesystem. The init
// finds the disk, mounts it and starts the machine from there. An init that can
// do so contains this name, by which the exporter recognizes it.
const StartupMarker = ".slipway-startup"
