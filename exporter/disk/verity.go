package disk

import (
	"fmt"
	"time"

	"github.com/slipway-build/slipway/exporter/gpt"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/exporter/verity"
	"github.com/slipway-build/slipway/internal/kernel/cmdline"
)

// verityStep is what the size of the EFI system partition of a disk with dm-verity
// is a multiple of, in bytes. The partitions that follow rarely move, so that a
// republished disk has the same blocks.
const verityStep = 32 * mebibyte

// NewVerity lays out a disk for UEFI with a root file system that dm-verity
// verifies. A unified kernel image has the root hash on its command line. The
// partitions, each at a multiple of 1 MiB, have the types and IDs of UAPI.2
// Discoverable Partitions Specification:
//
//	1   EFI system: EFI/BOOT/BOOTX64.EFI, the unified kernel image
//	2   root file system
//	3   its hash tree, see package verity
//
// The architecture is named as in GOARCH. Size, time and errors are as for New.
// NewVerity also fails for a command line that names a root.
func NewVerity(c Contents, root sparse.Content, architecture string, l Loaders, size int64, t time.Time) (Disk, error) {
	args := cmdline.Parse(c.Cmdline)
	for _, key := range []string{verity.CmdlineKey, "root"} {
		if _, ok := cmdline.Lookup(args, key); ok {
			return Disk{}, fmt.Errorf("kernel command line: %s= has no effect, because the build sets %s=: remove it", key, verity.CmdlineKey)
		}
	}
	hash, tree, err := verity.New(root)
	if err != nil {
		return Disk{}, err
	}
	// First, because the kernel ignores what follows "--".
	line := verity.CmdlineKey + "=" + hash.String()
	if c.Cmdline != "" {
		line += " " + c.Cmdline
	}
	c.Cmdline = line

	b := builder{boot: UKI, loaders: l, time: t, espFirst: alignment}
	if _, err := b.contents(c); err != nil {
		return Disk{}, err
	}
	if err := b.fit(0); err != nil {
		return Disk{}, err
	}
	esp := sparse.RoundUp((b.espLast+1-b.espFirst)*gpt.SectorSize, verityStep)
	// The backup of the table has the last 1 MiB.
	if err := b.divide(b.espFirst*gpt.SectorSize+esp+mebibyte, b.placed); err != nil {
		return Disk{}, err
	}
	rootID, treeID := hash.PartitionIDs()
	next := b.espLast + 1
	for _, p := range []extra{
		{gpt.Partition{Type: gpt.TypeRoot[architecture], ID: rootID, Attributes: gpt.ReadOnly, Name: "root"}, root},
		{gpt.Partition{Type: gpt.TypeRootVerity[architecture], ID: treeID, Attributes: gpt.ReadOnly, Name: "root verity"}, tree},
	} {
		if p.partition.Type == (gpt.GUID{}) {
			return Disk{}, fmt.Errorf("there is no type of root partitions for %s", architecture)
		}
		sectors := sectors(sparse.RoundUp(p.content.Size, mebibyte))
		p.partition.First, p.partition.Last = uint64(next), uint64(next+sectors-1)
		next += sectors
		b.extras = append(b.extras, p)
	}
	smallest := next*gpt.SectorSize + mebibyte
	if b.size = max(size, smallest); size > 0 && size < smallest {
		return Disk{}, tooSmall(size, smallest, "kernel, initrd, root file system and hash tree")
	}
	id, err := contentID(b.placed)
	if err != nil {
		return Disk{}, err
	}
	image, err := b.image(id)
	return Disk{Content: image, ID: id}, err
}
