package disk

import (
	"cmp"
	"errors"
	"fmt"
	"io"

	"github.com/slipway-build/slipway/exporter/gpt"
	"github.com/slipway-build/slipway/exporter/mbr"
)

// A PartitionTable is the partition table of a disk.
type PartitionTable struct {
	MBR        mbr.Table
	GPT        gpt.Table // zero if there is only a master boot record
	Partitions []Partition
}

// A Partition is an entry of a GUID partition table or of a master boot record.
type Partition struct {
	Number      int
	Name        string // "" in a master boot record
	Type        string // for people, for example "EFI system" or "MBR type 0x83"
	Start, Size int64  // bytes
	ESP         bool   // it is an EFI system partition
	BIOSBoot    bool   // it has boot code and nothing else
	Legacy      bool   // the boot code in the first sector may load it
	Root        bool   // it is the root file system of a machine
	RootVerity  bool   // it is the hash tree of one, see package verity
}

// typeNames are the types of GPT partitions that machines have.
var typeNames = map[gpt.GUID]string{
	gpt.TypeBIOSBoot: "BIOS boot", gpt.TypeESP: "EFI system", gpt.TypeData: "data", gpt.TypeLinux: "Linux",
	gpt.TypeRoot["amd64"]: "root", gpt.TypeRoot["arm64"]: "root",
	gpt.TypeRootVerity["amd64"]: "root verity", gpt.TypeRootVerity["arm64"]: "root verity",
}

// ReadPartitions reads the partition table of a disk. The partitions of a GUID
// partition table take precedence over those of the master boot record. The
// errors are those of [mbr.Read] and [gpt.Read], without [gpt.ErrNoTable]. A
// partition may end after the end of the disk.
func ReadPartitions(r io.ReaderAt) (PartitionTable, error) {
	var t PartitionTable
	var err error
	if t.MBR, err = mbr.Read(r); err != nil {
		return t, err
	}
	t.GPT, err = gpt.Read(r)
	if errors.Is(err, gpt.ErrNoTable) {
		t.GPT, err = gpt.Table{}, nil
		for i, p := range t.MBR.Partitions {
			if p.Sectors > 0 {
				t.Partitions = append(t.Partitions, Partition{
					Number: i + 1, Type: fmt.Sprintf("MBR type %#02x", p.Type),
					Start: int64(p.First) * mbr.Size, Size: int64(p.Sectors) * mbr.Size,
					ESP: p.Type == mbr.TypeESP, Legacy: p.Active,
				})
			}
		}
	}
	for _, p := range t.GPT.Partitions {
		bios, name := p.Type == gpt.TypeBIOSBoot, typeNames[p.Type]
		t.Partitions = append(t.Partitions, Partition{
			Number: p.Number, Name: p.Name, Type: cmp.Or(name, p.Type.String()),
			Start: int64(p.First) * gpt.SectorSize, Size: int64(p.Last-p.First+1) * gpt.SectorSize,
			ESP: p.Type == gpt.TypeESP, BIOSBoot: bios, Legacy: bios || p.Attributes&gpt.LegacyBoot != 0,
			Root: name == "root", RootVerity: name == "root verity",
		})
	}
	return t, err
}
