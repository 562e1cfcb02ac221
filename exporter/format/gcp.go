package format

import (
	"archive/tar"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/pgzip"

	"github.com/slipway-build/slipway/exporter/segment"
)

func init() {
	register(Format{
		Name:        "gcp",
		Description: "raw as disk.raw in a compressed tar archive, for Google Compute Engine",
		Suffixes:    []string{".img.tar.gz"},
		Segments:    segment.CPIO,
		Firmware:    BIOS | UEFI,
		Options:     Size,
		writer:      gcpWriter{},
	})
}

// gcpWriter writes a disk as Google Compute Engine imports it (Compute Engine
// documentation, Manually import boot disks): the archive has the old GNU
// format and one file, disk.raw, whose size is a multiple of 1 GiB.
type gcpWriter struct{}

func (gcpWriter) write(j *job) error {
	if j.in.Size%gibibyte != 0 {
		return fmt.Errorf("SIZE: Google Compute Engine requires a multiple of 1 GiB, not %d bytes", j.in.Size)
	}
	d, err := j.disk(false, gibibyte)
	if err != nil {
		return err
	}
	j.warnGRUB(d.BIOSCmdline)
	return j.createOnly(func(f *os.File) error {
		compressor := pgzip.NewWriter(f)
		archive := tar.NewWriter(compressor)
		header := &tar.Header{Name: "disk.raw", Typeflag: tar.TypeReg, Mode: 0o644, Size: d.Size, ModTime: j.in.Time, Format: tar.FormatGNU}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if _, err := io.Copy(archive, d.Reader()); err != nil {
			return err
		}
		if err := archive.Close(); err != nil {
			return err
		}
		return compressor.Close()
	})
}
