package disk

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/slipway-build/slipway/exporter/cpio"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/contract/reserve"
)

// An image can reserve areas that are filled after the build, see [Reserved]:
//
//   - for additions to the command line, spaces after it: in GRUB's configuration
//     at the end of the line with the command linux, in the entry of systemd-boot
//     at the end of the line options, behind the closing quote, and in the section
//     .cmdline of a UKI. All of them ignore spaces at the end.
//   - for user data, the file of package reserve: in an archive of its own, which
//     is the last one of the initramfs and not compressed, or on a CD with the
//     root filesystem.
//
// A line before that of the command line, or in the section .osrel, says where
// the area begins in the line and how large the areas are.
const (
	reserveMark    = "# slipway-reserve "
	ukiReserveMark = "SLIPWAY_RESERVE="
)

// The limits of the size that an image can reserve, in bytes. It is a multiple of
// the least one.
const (
	MinReserve = 512
	MaxReserve = 4 << 20
)

// CheckReserve returns an error unless an image can reserve n bytes.
func CheckReserve(n int64) error {
	if n != 0 && (n < MinReserve || n > MaxReserve || n%MinReserve != 0) {
		return fmt.Errorf("an image can reserve %d bytes to 4M, in multiples of %[1]d", MinReserve)
	}
	return nil
}

// cmdlineArea returns the size of the area for the command line: Linux accepts no
// longer one.
func cmdlineArea(reserved int64) int { return int(min(reserved, cmdlineMax+1)) }

// marks are the numbers of the line before that of the command line.
type marks struct {
	start    int   // of the area in the line or section
	area     int   // for the command line, in bytes
	userData int64 // bytes of the file for user data
}

func (m marks) String() string { return fmt.Sprintf("%d %d %d", m.start, m.area, m.userData) }

// parseMarks parses what String returns.
func parseMarks(text string) (m marks, ok bool) {
	n, err := fmt.Sscanf(text, "%d %d %d", &m.start, &m.area, &m.userData)
	ok = err == nil && n == 3 && m.String() == text && m.start >= 0 && m.area > 0 && m.area <= cmdlineMax+1 && m.userData > 0 && CheckReserve(m.userData) == nil
	return m, ok
}

// reservedLine returns a line of a configuration with an area at its end. The end
// of the line, for example a closing quote, is in the area.
func reservedLine(line, end string, reserved int64) string {
	if reserved == 0 {
		return line + end + "\n"
	}
	area := cmdlineArea(reserved)
	return reserveMark + marks{len(line), area, reserved}.String() + "\n" + line + end + strings.Repeat(" ", area-len(end)) + "\n"
}

// ReserveInitrd returns the contents with an area for user data in the initramfs,
// and with areas for the command line. All archives before it must be padded.
func (c Contents) ReserveInitrd(size int64) Contents {
	c.Reserve = size
	if size > 0 {
		before, file, after := reserveArchive(size)
		c.Initrd = append(c.Initrd[:len(c.Initrd):len(c.Initrd)], sparse.Bytes(bytes.Join([][]byte{before, file, after}, nil)))
	}
	return c
}

// ReserveTree returns the entries of a root filesystem with an area for user data.
func ReserveTree(entries []tree.Entry, size int64) ([]tree.Entry, error) {
	file, err := reserve.Encode(nil, size)
	if err != nil {
		return nil, err
	}
	return tree.Merge([]tree.Part{
		{Name: "the machine", Entries: entries},
		{Name: "the reserved area", Entries: []tree.Entry{tree.NewDir("etc"), tree.NewDir(reserve.Dir), tree.NewFile(reserve.Path, 0o600, string(file))}},
	})
}

// reserveArchive returns the archive of the initramfs with the file for user
// data: what is before the file, the empty file and what is after it.
func reserveArchive(size int64) (before, file, after []byte) {
	file, err := reserve.Encode(nil, size)
	var b bytes.Buffer
	w := cpio.NewWriter(&b)
	must := func(e error) {
		if err == nil {
			err = e
		}
	}
	must(w.WriteHeader(cpio.Header{Name: reserve.Dir, Inode: 1, Mode: cpio.TypeDir | 0o755, Links: 2}))
	must(w.WriteHeader(cpio.Header{Name: reserve.Path, Inode: 2, Mode: cpio.TypeFile | 0o600, Links: 1, Size: size}))
	start := b.Len()
	_, e := w.Write(file)
	must(e)
	must(w.Close())
	if err != nil {
		panic(err) // a buffer does not fail, and the size is valid
	}
	return b.Bytes()[:start], file, b.Bytes()[start+len(file):]
}
