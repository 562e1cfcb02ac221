package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"os"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/guest/blockdev"
)

// chunkSize is how much is read and written at once, in bytes.
const chunkSize = 4 << 20

// A device is a disk to write to.
type device interface {
	io.ReaderAt
	io.WriterAt
	// zero writes zeros.
	zero(offset, length int64) error
	// settle waits until everything is on the disk, and drops what is cached.
	settle() error
}

// blockDevice is a block device of the kernel.
type blockDevice struct{ *os.File }

func (d blockDevice) zero(offset, length int64) error {
	// The kernel writes the zeros itself if the disk cannot.
	return unix.Fallocate(int(d.Fd()), unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, offset, length)
}

func (d blockDevice) settle() error {
	if err := d.Sync(); err != nil {
		return err
	}
	return unix.IoctlSetInt(int(d.Fd()), unix.BLKFLSBUF, 0)
}

// install writes an image to a disk and verifies it.
func install(path string, image *image) error {
	f, err := blockdev.Open(path, os.O_RDWR|unix.O_EXCL)
	if err != nil {
		return err
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if end < image.size {
		return fmt.Errorf("%s has %d bytes, and the image %d: nothing was written", path, end, image.size)
	}
	if err := write(blockDevice{f}, end, image); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	_ = unix.IoctlSetInt(int(f.Fd()), unix.BLKRRPART, 0) // for those who look before the reboot
	return nil
}

// write writes an image to a device of end bytes and verifies it. The first
// chunk, without which the disk does not boot, comes last: a disk boots only
// after all else was written.
func write(d device, end int64, image *image) error {
	first := min(chunkSize, image.size)
	if err := d.zero(0, first); err != nil {
		return err
	}
	// A partition table that the disk had before has a copy at the end.
	if tail := max(image.size, end-1<<20); tail < end {
		if err := d.zero(tail, end-tail); err != nil {
			return err
		}
	}
	var head []byte
	sum := sha256.New()
	progress := 0
	err := chunks(image, image.size, func(chunk []byte, at int64) error {
		sum.Write(chunk)
		if percent := int(10 * (at + int64(len(chunk))) / image.size * 10); percent > progress {
			progress = percent
			log.Printf("%d %%", percent)
		}
		switch {
		case at == 0:
			head = bytes.Clone(chunk)
			return nil
		case isZero(chunk):
			return d.zero(at, int64(len(chunk)))
		}
		_, err := d.WriteAt(chunk, at)
		return err
	})
	if err != nil {
		return err
	}
	sum.Sum(image.written[:0])
	if image.sha256 != nil && !bytes.Equal(image.sha256, image.written[:]) {
		return fmt.Errorf("the image has the SHA-256 %x, not %x: the disk does not boot", image.written, image.sha256)
	}
	if err := d.settle(); err != nil {
		return err
	}
	if _, err := d.WriteAt(head, 0); err != nil {
		return err
	}
	if err := d.settle(); err != nil {
		return err
	}
	got := sha256.New()
	err = chunks(d, image.size, func(chunk []byte, _ int64) error {
		got.Write(chunk)
		return nil
	})
	if err == nil && !bytes.Equal(got.Sum(nil), image.written[:]) {
		err = fmt.Errorf("the disk has the SHA-256 %x after writing, not %x: it is broken", got.Sum(nil), image.written)
	}
	if err != nil { // do not boot from it
		err = errors.Join(err, d.zero(0, first), d.settle())
	}
	return err
}

// chunks calls do for each chunk of a reader in order.
func chunks(r io.ReaderAt, size int64, do func(chunk []byte, at int64) error) error {
	buf := make([]byte, min(chunkSize, size))
	for at := int64(0); at < size; at += chunkSize {
		chunk := buf[:min(chunkSize, size-at)]
		if n, err := r.ReadAt(chunk, at); n < len(chunk) {
			return fmt.Errorf("read at %d: %w", at, err)
		}
		if err := do(chunk, at); err != nil {
			return err
		}
	}
	return nil
}

func isZero(b []byte) bool {
	return len(b) == 0 || b[0] == 0 && bytes.Equal(b[:len(b)-1], b[1:])
}
