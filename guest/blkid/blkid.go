// Package blkid identifies the content of block devices by their first blocks,
// as blkid(8) does.
package blkid

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Content is the content of a device.
type Content struct {
	Type  string // of a filesystem as for mount(2), with ext4 for ext2 and ext3; others as in blkid(8): crypto_LUKS, swap, LVM2_member
	Label string
	UUID  string // as in /dev/disk/by-uuid
}

func (c Content) String() string {
	if c.Label != "" {
		return fmt.Sprintf("%s %q", c.Type, c.Label)
	}
	return c.Type
}

// Mountable reports whether the content is a filesystem.
func (c Content) Mountable() bool {
	switch c.Type {
	case "", "crypto_LUKS", "swap", "LVM2_member":
		return false
	}
	return true
}

// ErrUnknown is the error for a device whose content is not recognized.
var ErrUnknown = errors.New("unknown content")

// Identify identifies the content of a device. The error is ErrUnknown if it
// does not recognize the content.
func Identify(device string) (Content, error) {
	f, err := os.Open(device)
	if err != nil {
		return Content{}, err
	}
	defer f.Close()
	return Probe(f)
}

// headSize is how much of a device Probe reads, in bytes. The last part is the
// superblock of btrfs, 4 KiB at 64 KiB.
const headSize = 68 << 10

// Probe identifies the content of a device from its beginning.
func Probe(r io.ReaderAt) (Content, error) {
	head := make([]byte, headSize)
	n, err := r.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return Content{}, err
	}
	for _, f := range formats {
		if n >= f.at+len(f.magic) && string(head[f.at:f.at+len(f.magic)]) == f.magic {
			return f.read(head), nil
		}
	}
	return Content{}, ErrUnknown
}

// formats are the known contents, by a magic at an offset. read gets headSize
// bytes, with zeros after the end of a small device.
var formats = []struct {
	magic string
	at    int
	read  func(head []byte) Content
}{
	// https://gitlab.com/cryptsetup/LUKS2-docs, 2.1: only version 2 has labels.
	{"LUKS\xba\xbe", 0, func(head []byte) Content {
		c := Content{Type: "crypto_LUKS", UUID: text(head[168:208])}
		if binary.BigEndian.Uint16(head[6:]) == 2 {
			c.Label = text(head[24:72])
		}
		return c
	}},
	// https://docs.kernel.org/filesystems/ext4/super.html
	{"\x53\xef", 1024 + 56, func(head []byte) Content {
		s := head[1024:]
		return Content{"ext4", text(s[120:136]), uuid(s[104:120])}
	}},
	// https://www.kernel.org/pub/linux/utils/fs/xfs/docs/xfs_filesystem_structure.pdf, 13.1
	{"XFSB", 0, func(head []byte) Content { return Content{"xfs", text(head[108:120]), uuid(head[32:48])} }},
	// https://btrfs.readthedocs.io/en/latest/dev/On-disk-format.html
	{"_BHRfS_M", 64<<10 + 64, func(head []byte) Content {
		s := head[64<<10:]
		return Content{"btrfs", text(s[299:555]), uuid(s[32:48])}
	}},
	// struct erofs_super_block in fs/erofs/erofs_fs.h of Linux
	{"\xe2\xe1\xf5\xe0", 1024, func(head []byte) Content {
		s := head[1024:]
		return Content{"erofs", text(s[64:80]), uuid(s[48:64])}
	}},
	// https://dr-emann.github.io/squashfs
	{"hsqs", 0, func([]byte) Content { return Content{Type: "squashfs"} }},
	// ECMA-119, 8.4: the primary volume descriptor in sector 16
	{"CD001", 16*2048 + 1, func(head []byte) Content { return Content{Type: "iso9660", Label: text(head[32808:32840])} }},
	// Microsoft's specification of FAT, 3.1: FAT32, then FAT12 and FAT16
	{"FAT32   ", 82, func(head []byte) Content { return fat(head[67:]) }},
	{"FAT1", 54, func(head []byte) Content { return fat(head[39:]) }},
	// union swap_header in include/linux/swap.h of Linux; its magic ends the first page
	{"SWAPSPACE2", 4096 - 10, func(head []byte) Content { return Content{"swap", text(head[1052:1068]), uuid(head[1036:1052])} }},
	// lib/format_text/layout.h of LVM2: the label is in the second sector
	{"LABELONE", 512, func([]byte) Content { return Content{Type: "LVM2_member"} }},
}

// fat parses the serial number and the label after it.
func fat(b []byte) Content {
	c := Content{Type: "vfat", Label: text(b[4:15])}
	if c.Label == "NO NAME" {
		c.Label = ""
	}
	id := binary.LittleEndian.Uint32(b)
	c.UUID = fmt.Sprintf("%04X-%04X", id>>16, id&0xffff)
	return c
}

// text parses a field that is padded with zeros or spaces.
func text(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return strings.TrimRight(string(b), " ")
}

func uuid(b []byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}
