package format

import (
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/contract"
)

// rootFS is a file system for the root of a machine.
type rootFS struct {
	name    string   // in messages
	kind    string   // as mount(2) takes it
	needs   []string // kernel modules
	drivers []string // modules for the disks that usually hold it
	verity  bool     // dm-verity verifies it
	encoder rootEncoder
}

// rootEncoder writes a file system.
type rootEncoder interface {
	// supportsXattr reports whether the file system can store an extended attribute.
	supportsXattr(xattr string) bool
	encodeRoot(f *os.File, entries []tree.Entry, j *job) error
}

// suffix returns the suffix of a file that has nothing but this file system.
func (fs rootFS) suffix() string { return "-" + fs.kind + ".img" }

// RootSuffixes returns the suffixes of the root filesystems that formats with a
// kernel write as files of their own.
func RootSuffixes() []string {
	return []string{squashfsRoot.suffix(), erofsRoot.suffix(), isoSuffix}
}

// registerRoot registers the format of a root filesystem in a file of its own.
func registerRoot(root rootFS) {
	register(Format{
		Name:        "kernel+" + root.kind,
		Description: "kernel, command line and root filesystem as " + root.name + "; initramfs if the kernel needs modules for it",
		Suffixes:    append(bootSuffixes(), root.suffix()),
		Segments:    segment.Tar,
		Options:     Compression,
		writer:      rootWriter{root},
	})
}

// rootWriter writes a kernel, its command line and the root filesystem, and an
// initramfs if the kernel needs modules to mount that, or there is microcode.
type rootWriter struct{ fs rootFS }

func (w rootWriter) write(j *job) error {
	entries, err := j.tree(false)
	if err != nil {
		return err
	}
	entries = w.fs.prepare(entries, j.warn)
	initrd, err := j.startup(entries, w.fs)
	if err != nil {
		return err
	}
	if err := j.writeBoot(initrd); err != nil {
		return err
	}
	last := j.format.Suffixes[len(j.format.Suffixes)-1]
	return j.create(last, func(f *os.File) error { return w.fs.encoder.encodeRoot(f, entries, j) })
}

// prepare adds the directories that the machine mounts file systems on, because
// nobody can create them on a read-only root. It warns of extended attributes
// that the file system cannot store.
func (r rootFS) prepare(entries []tree.Entry, warn func(string)) []tree.Entry {
	exists := map[string]bool{}
	dropped := map[string]int{}
	for _, e := range entries {
		exists[e.Path] = true
		for name := range e.Xattrs {
			if !r.encoder.supportsXattr(name) {
				dropped[name]++
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(dropped)) {
		warn(fmt.Sprintf("%s cannot store the extended attribute %s; files that lose it: %d", r.name, name, dropped[name]))
	}
	for _, name := range contract.MountPoints() {
		if !exists[name] {
			entries = append(entries, tree.NewDir(name))
		}
	}
	return tree.AddParents(entries)
}
