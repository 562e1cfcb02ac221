package format

import (
	"io"
	"os"
	"path"

	"github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/qcow2"
	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/exporter/tree"
)

// Where KubeVirt looks for the disk of a container disk, and as whom it reads
// it. See "containerDisk Workflow Example" in KubeVirt's user guide.
const (
	containerDiskDir  = "disk"
	containerDiskUser = 107 // qemu
	containerDiskMode = 0o440
)

func init() {
	register(Format{
		Name:        "containerdisk",
		Description: "KubeVirt container disk: an image with qcow2 in /disk, for --output type=image or registry",
		Suffixes:    []string{".tar"},
		Segments:    segment.CPIO,
		Firmware:    BIOS | UEFI,
		Options:     Size,
		Container:   true,
		writer:      diskWriter{container: containerDisk{}},
	})
}

type containerDisk struct{}

func (containerDisk) encode(f *os.File, d disk.Disk, j *job) error {
	image, err := qcow2.New(d.Content)
	if err != nil {
		return err
	}
	return tree.WriteTar(f, []tree.Entry{tree.NewDir(containerDiskDir), {
		Path: path.Join(containerDiskDir, j.in.Name+".qcow2"),
		Type: tree.File,
		Mode: containerDiskMode,
		UID:  containerDiskUser,
		GID:  containerDiskUser,
		Size: image.Size,
		Open: func() (tree.Content, error) { return openContent(image), nil },
	}}, j.in.Time)
}

// openContent returns c as the open content of a file.
func openContent(c sparse.Content) tree.Content {
	return struct {
		*io.SectionReader
		io.Closer
	}{io.NewSectionReader(c, 0, c.Size), io.NopCloser(nil)}
}
