package disk

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/klauspost/compress/zstd"
)

// Limits on the memory that unpacking takes, and on what is read in all.
const (
	maxWindow = 32 << 20
	maxRead   = 1 << 30
	maxName   = 4096
)

var (
	errUnknownInitrd = errors.New("not an initramfs that is understood")
	errLargeInitrd   = errors.New("an initramfs that is too large to look into")
)

// visitFile sees a regular file; the reader is good until it returns. It
// returns false for no more files.
type visitFile func(path string, size int64, content io.Reader) (more bool)

// walkInitrd shows all regular files of an initramfs. That is a sequence of newc
// archives, plain or compressed by gzip or zstd, with NULs between them (Linux,
// Documentation/driver-api/early-userspace/buffer-format.rst).
func walkInitrd(r io.Reader, visit visitFile) error {
	left := int64(maxRead)
	_, err := walkArchives(budget{r, &left}, true, visit)
	return err
}

// budget reads until nothing is left of it.
type budget struct {
	r    io.Reader
	left *int64
}

func (b budget) Read(p []byte) (int, error) {
	if *b.left <= 0 {
		return 0, errLargeInitrd
	}
	n, err := b.r.Read(p)
	*b.left -= int64(n)
	return n, err
}

func walkArchives(from budget, packed bool, visit visitFile) (more bool, err error) {
	r := bufio.NewReaderSize(from, 64<<10)
	for {
		magic, err := r.Peek(4)
		switch {
		case len(magic) == 0 && err == io.EOF:
			return true, nil
		case len(magic) > 0 && magic[0] == 0:
			_, _ = r.Discard(1)
			continue
		case err != nil:
			return false, errUnknownInitrd
		}
		var unpacked io.Reader
		switch {
		case string(magic) == "0707":
			if more, err := walkArchive(r, visit); err != nil || !more {
				return false, err
			}
			continue
		case packed && bytes.HasPrefix(magic, []byte("\x1f\x8b")):
			z, err := gzip.NewReader(r)
			if err != nil {
				return false, err
			}
			z.Multistream(false)
			unpacked = z
		case packed && string(magic) == "\x28\xb5\x2f\xfd":
			z, err := zstd.NewReader(&zstdFrame{r: r}, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.IgnoreChecksum(true))
			if err != nil {
				return false, err
			}
			defer z.Close()
			unpacked = z
		default:
			return false, errUnknownInitrd
		}
		if more, err := walkArchives(budget{unpacked, from.left}, false, visit); err != nil || !more {
			return false, err
		}
	}
}

// walkArchive reads one archive: headers of 110 characters, the magic 070701 or
// 070702 and 13 numbers of eight hexadecimal digits.
func walkArchive(r *bufio.Reader, visit visitFile) (more bool, err error) {
	const headerSize, modeField, sizeField, nameField = 110, 1, 6, 11
	header := make([]byte, headerSize)
	for {
		if _, err := io.ReadFull(r, header); err != nil {
			return false, err
		}
		if string(header[:5]) != "07070" || header[5] != '1' && header[5] != '2' {
			return false, errUnknownInitrd
		}
		var fields [13]int64
		for i := range fields {
			n, err := strconv.ParseUint(string(header[6+8*i:][:8]), 16, 32)
			if err != nil {
				return false, errUnknownInitrd
			}
			fields[i] = int64(n)
		}
		if fields[nameField] < 1 || fields[nameField] > maxName {
			return false, errUnknownInitrd
		}
		name := make([]byte, fields[nameField])
		if _, err := io.ReadFull(r, name); err != nil {
			return false, err
		}
		if err := skip(r, -(headerSize+fields[nameField])&3); err != nil {
			return false, err
		}
		path, size := string(bytes.TrimRight(name, "\x00")), fields[sizeField]
		if path == "TRAILER!!!" {
			return true, nil
		}
		const typeMask, typeFile = 0o170000, 0o100000
		content := &io.LimitedReader{R: r, N: size}
		if fields[modeField]&typeMask == typeFile && !visit(path, size, content) {
			return false, nil
		}
		if err := skip(r, content.N+-size&3); err != nil {
			return false, err
		}
	}
}

func skip(r io.Reader, n int64) error {
	if done, err := io.CopyN(io.Discard, r, n); err != nil {
		return fmt.Errorf("%d bytes are missing: %w", n-done, io.ErrUnexpectedEOF)
	}
	return nil
}

// zstdFrame reads one frame and nothing behind it: a header, blocks with
// headers of three bytes, and a checksum (RFC 8878, 3.1.1).
type zstdFrame struct {
	r       *bufio.Reader
	started bool
	left    int64 // of the piece that is being read
	last    bool  // it is the last block, or the checksum
	sum     int64 // bytes of the checksum
}

func (f *zstdFrame) Read(p []byte) (int, error) {
	switch {
	case f.left > 0:
	case !f.started:
		head, _ := f.r.Peek(zstd.HeaderMaxSize)
		var h zstd.Header
		if h.Decode(head) != nil {
			return 0, errUnknownInitrd // not an end, as which the decoder takes some of its own errors
		}
		f.started, f.left = true, int64(h.HeaderSize)
		if h.HasCheckSum {
			f.sum = 4
		}
	case !f.last:
		head, err := f.r.Peek(3)
		if err != nil {
			return 0, errUnknownInitrd
		}
		block := uint32(head[0]) | uint32(binary.LittleEndian.Uint16(head[1:]))<<8
		const typeRLE = 1 // one byte, however often it is repeated
		f.last, f.left = block&1 != 0, 3+int64(block>>3)
		if block>>1&3 == typeRLE {
			f.left = 3 + 1
		}
	default:
		f.left, f.sum = f.sum, 0
		if f.left == 0 {
			return 0, io.EOF
		}
	}
	n, err := f.r.Read(p[:min(int64(len(p)), f.left)])
	f.left -= int64(n)
	if err == io.EOF {
		err = errUnknownInitrd
	}
	return n, err
}
