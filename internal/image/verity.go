package image

import (
	"encoding/hex"
	"errors"
	"io"

	"github.com/slipway-build/slipway/exporter/erofs"
	"github.com/slipway-build/slipway/exporter/verity"
	"github.com/slipway-build/slipway/internal/kernel/cmdline"
)

// A Verity is what dm-verity verifies of a disk.
type Verity struct {
	RootHash string `json:"rootHash"`        // on the kernel command line
	DataSize int64  `json:"dataSize"`        // bytes of the root file system
	Salt     string `json:"salt"`            // in hexadecimal
	Matches  bool   `json:"matches"`         // root hash, hash tree and data belong together
	Error    string `json:"error,omitempty"` // why they do not, or are not verified
}

// verityParts are the partitions that dm-verity uses.
type verityParts struct{ data, tree *io.SectionReader }

// readVerity finds the root file system of a disk that has a hash tree for it, and
// reads it if it is EROFS.
func (i *Image) readVerity(r io.ReaderAt, size int64) {
	section := func(wanted func(Partition) bool) *io.SectionReader {
		for _, p := range i.Partitions {
			if wanted(p) && p.Start <= size-p.Size {
				return io.NewSectionReader(r, p.Start, p.Size)
			}
		}
		return nil
	}
	v := verityParts{
		data: section(func(p Partition) bool { return p.root }),
		tree: section(func(p Partition) bool { return p.rootVerity }),
	}
	if v.data == nil || v.tree == nil || i.bootOnly {
		return
	}
	i.verity = v
	entries, err := erofs.Read(v.data, v.data.Size())
	if err != nil {
		i.warn("root file system: %v", err)
		return
	}
	i.RootKind, i.Root = "EROFS", entries
}

// maxVerified limits the data from strangers that Verity reads, in bytes.
const maxVerified = 64 << 30

// Verity verifies the root file system of a disk with the root hash on its command
// line, as the machine does when it reads it. It reads all of it. It returns nil for
// an image without a hash tree.
func (i *Image) Verity() *Verity {
	if i.verity.tree == nil {
		return nil
	}
	var v Verity
	if err := v.verify(i); err != nil {
		v.Error = err.Error()
	}
	v.Matches = v.Error == ""
	return &v
}

func (v *Verity) verify(i *Image) error {
	v.RootHash, _ = cmdline.Lookup(cmdline.Parse(i.Cmdline), verity.CmdlineKey)
	superblock, err := verity.Read(i.verity.tree)
	if err != nil {
		return err
	}
	v.DataSize, v.Salt = superblock.DataSize(), hex.EncodeToString(superblock.Salt)
	root, err := verity.ParseHash(v.RootHash)
	if err != nil {
		return err
	}
	if v.DataSize > maxVerified {
		return errors.New("not verified: it has more than 64 GiB")
	}
	return superblock.Verify(i.verity.data, i.verity.tree, root)
}
