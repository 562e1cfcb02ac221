// Package startup is what the exporter and a machine's init agree on where the root filesystem lies on a disk: a small initramfs holds
// the init and the modules that reach the disk; the init mounts the disk and starts the machine from there.
package startup

// Marker is a file at the root of such an initramfs. It holds the type of the root filesystem. An init that knows it has its name in its program.
const Marker = ".slipway-startup"
