package disk

import (
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/slipway-build/slipway/exporter/cpio"
	exporterdisk "github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/fat"
	"github.com/slipway-build/slipway/exporter/gpt"
	"github.com/slipway-build/slipway/exporter/mbr"
)

// A Place says what a byte of a disk belongs to.
type Place struct {
	Partition string `json:"partition,omitempty"` // number and label, or "" outside of partitions
	Component string `json:"component,omitempty"` // for example a file, or "" if it is not known
}

func (p Place) String() string {
	if p.Partition == "" {
		return p.Component
	}
	return strings.TrimSuffix("partition "+p.Partition+", "+p.Component, ", ")
}

// maxFiles limits the files of an EFI system partition that Place looks at.
const maxFiles = 10_000

// Place returns what the byte at an offset belongs to. It is zero where the
// disk cannot be read.
func (d *Disk) Place(at int64) Place {
	table, err := exporterdisk.ReadPartitions(d)
	if err != nil {
		return Place{}
	}
	for _, p := range table.Partitions {
		if at < p.Start || at >= p.Start+p.Size {
			continue
		}
		place := Place{Partition: label(p)}
		if p.ESP {
			place.Component = componentAt(io.NewSectionReader(d, p.Start, p.Size), at-p.Start)
		}
		return place
	}
	isGPT := table.GPT.Sectors > 0
	switch used := int64(table.GPT.Sectors) * gpt.SectorSize; {
	case at < mbr.BootCodeSize:
		return Place{Component: "boot code"}
	case at < mbr.Size && isGPT:
		return Place{Component: "protective MBR"}
	case at < mbr.Size:
		return Place{Component: "partition table"}
	case isGPT && at < gpt.FirstUsable*gpt.SectorSize:
		return Place{Component: "GUID partition table"}
	case isGPT && at >= used-gpt.BackupSectors*gpt.SectorSize && at < used:
		return Place{Component: "backup of the GUID partition table"}
	}
	return Place{Component: "outside of all partitions"}
}

// componentAt returns the file that a byte of an EFI system partition belongs
// to, with the section of a unified kernel image, and what is near in an
// initramfs.
func componentAt(r *io.SectionReader, at int64) string {
	const other = "file system"
	esp, err := fat.Open(r)
	if err != nil {
		return ""
	}
	component, files := other, 0
	_ = fs.WalkDir(esp, ".", func(path string, entry fs.DirEntry, err error) error {
		if files++; files > maxFiles {
			return fs.SkipAll
		}
		if err != nil || entry.IsDir() {
			return nil // other files can still be read
		}
		inFile, ok, err := esp.Position(path, at)
		if err != nil || !ok {
			return nil
		}
		component = fmt.Sprintf("file %q", path)
		content, err := esp.Content(path)
		if err != nil {
			return fs.SkipAll
		}
		initrd := *content
		if program, err := readProgram(esp, path); err == nil {
			for _, section := range program.Sections {
				for _, run := range section.Content.Runs {
					inside, ok := run.Data.(*io.SectionReader)
					if !ok {
						continue
					}
					if _, start, size := inside.Outer(); inFile >= start && inFile < start+size {
						component += fmt.Sprintf(", section %q", section.Name)
						initrd, inFile = *inside, inFile-start
					}
				}
			}
		}
		if near := memberAt(&initrd, inFile); near != "" {
			component += fmt.Sprintf(", near %q", near)
		}
		return fs.SkipAll
	})
	return component
}

// memberAt returns the member of an initramfs that is unpacked from about the
// byte at an offset, or "".
func memberAt(r *io.SectionReader, at int64) string {
	counted := &counter{r: io.NewSectionReader(r, 0, r.Size())}
	initrd := cpio.NewInitramfsReader(counted, maxInitrd)
	defer initrd.Close()
	near := ""
	for counted.read <= at {
		h, err := initrd.Next() // skips the content of the member before
		if err != nil || counted.read > at && near != "" {
			break
		}
		near = h.Name
	}
	return near
}

// counter counts the bytes that are read.
type counter struct {
	r    io.Reader
	read int64
}

func (c *counter) Read(p []byte) (int, error) {
	// A small buffer makes the count more exact.
	n, err := c.r.Read(p[:min(len(p), 4<<10)])
	c.read += int64(n)
	return n, err
}

// label returns the number and the name of a partition.
func label(p exporterdisk.Partition) string {
	if p.Name == "" {
		return fmt.Sprint(p.Number)
	}
	return fmt.Sprintf("%d %q", p.Number, p.Name)
}

// other reports whether a partition is neither an EFI system partition nor for
// boot code alone.
func other(p exporterdisk.Partition) bool { return !p.ESP && !p.BIOSBoot }
