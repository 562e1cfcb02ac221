package disklink

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/exporter/gpt"
	"github.com/slipway-build/slipway/exporter/mbr"
	"github.com/slipway-build/slipway/guest/blkid"
)

// A device is a block device in sysfs (Linux,
// Documentation/ABI/stable/sysfs-block).
type device struct {
	root      string
	name      string // in /dev
	dir       string // in /sys/devices
	partition int    // its number; 0: a whole disk
}

// open opens a block device of the kernel. The error is fs.ErrNotExist if it is
// gone.
func open(root, name string) (*device, error) {
	dir, err := filepath.EvalSymlinks(filepath.Join(root, "sys/class/block", name))
	if err != nil {
		return nil, err
	}
	d := &device{root: root, name: name, dir: dir}
	if text := d.attribute("partition"); text != "" {
		if d.partition, err = strconv.Atoi(text); err != nil || d.partition < 1 {
			return nil, fmt.Errorf("%s: partition %q", name, text)
		}
	}
	return d, nil
}

func (d *device) node() string { return filepath.Join(d.root, "dev", d.name) }

// disk returns the directory of the whole disk.
func (d *device) disk() string {
	if d.partition > 0 {
		return filepath.Dir(d.dir)
	}
	return d.dir
}

// attribute returns an attribute, or "" if the kernel does not provide it.
func (d *device) attribute(name string) string { return read(filepath.Join(d.dir, name)) }

func (d *device) diskAttribute(name string) string { return read(filepath.Join(d.disk(), name)) }

func read(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// names returns the links to a device, as paths in /dev. If the device cannot be
// read, it returns those that do not depend on its content, and the error.
func names(root, name string) ([]string, error) {
	d, err := open(root, name)
	if err != nil {
		return nil, err
	}
	if size := d.attribute("size"); size == "" || size == "0" {
		return nil, nil // a loop device without a file, a drive without a medium
	}
	var links []string
	suffix := ""
	if d.partition > 0 {
		suffix = "-part" + strconv.Itoa(d.partition)
	}
	for _, id := range d.ids() {
		links = append(links, "disk/by-id/"+id+suffix)
	}
	if path := d.path(); path != "" {
		links = append(links, "disk/by-path/"+path+suffix)
	}
	if ec2 := d.ec2Name(); ec2 != "" {
		if d.partition > 0 {
			ec2 += strconv.Itoa(d.partition)
		}
		links = append(links, ec2)
	}
	content, err := d.content()
	return append(links, content...), err
}

// ids returns the names of the disk by which its maker tells it from others.
func (d *device) ids() []string {
	var ids []string
	switch model, serial := d.diskAttribute("device/model"), d.diskAttribute("device/serial"); {
	case strings.HasPrefix(d.name, "nvme"):
		if model != "" && serial != "" {
			id := "nvme-" + safe(model) + "_" + safe(serial)
			ids = append(ids, id)
			if nsid := d.diskAttribute("nsid"); nsid != "" {
				ids = append(ids, id+"_"+safe(nsid))
			}
		}
		if wwid := d.diskAttribute("wwid"); wwid != "" {
			ids = append(ids, "nvme-"+safe(wwid))
		}
	case strings.HasPrefix(d.name, "vd"):
		if serial := d.diskAttribute("serial"); serial != "" {
			ids = append(ids, "virtio-"+safe(serial))
		}
	case strings.HasPrefix(d.name, "sd"):
		// The prefix 3 is the type NAA of page 0x83 of SPC-4, 7.8.6.
		if naa, ok := strings.CutPrefix(d.diskAttribute("device/wwid"), "naa."); ok && naa != "" {
			ids = append(ids, "wwn-0x"+safe(naa), "scsi-3"+safe(naa))
		}
	}
	return ids
}

// safe replaces characters that udev does not put into names either: white space
// at the ends is removed, and anything else but letters, digits and #+-.:=@_ is
// an underscore.
func safe(text string) string {
	var b strings.Builder
	space := false
	for _, c := range strings.TrimSpace(text) {
		switch {
		case c == ' ' || c == '\t':
			if !space {
				b.WriteByte('_')
			}
		case plain(c):
			b.WriteRune(c)
		default:
			b.WriteByte('_')
		}
		space = c == ' ' || c == '\t'
	}
	return b.String()
}

func plain(c rune) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("#+-.:=@_", c)
}

// encode returns a label as udev puts it into a file name: other characters than
// those of plain, and of UTF-8 beyond ASCII, are \x and two hexadecimal digits. A
// label can contain anything. "." and ".." are encoded too.
func encode(label string) string {
	if strings.Trim(label, ".") == "" {
		return strings.ReplaceAll(label, ".", `\x2e`)
	}
	var b strings.Builder
	for len(label) > 0 {
		c, n := utf8.DecodeRuneInString(label)
		if plain(c) || c >= utf8.RuneSelf && c != utf8.RuneError {
			b.WriteString(label[:n])
		} else {
			for _, raw := range []byte(label[:n]) {
				fmt.Fprintf(&b, `\x%02x`, raw)
			}
		}
		label = label[n:]
	}
	return b.String()
}

var (
	pciAddress = regexp.MustCompile(`^[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)
	scsiTarget = regexp.MustCompile(`^\d+:(\d+:\d+:\d+)$`)
	ataPort    = regexp.MustCompile(`^ata\d+$`)
	xenDevice  = regexp.MustCompile(`^vbd-\d+$`)
	vmbusID    = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
)

// path returns where the disk is attached, as path_id of udev does: the nearest
// PCI device or other bus, then the place behind it. It is "" for devices of
// software, such as loop.
func (d *device) path() string {
	devices, err := filepath.EvalSymlinks(filepath.Join(d.root, "sys/devices"))
	if err != nil {
		return ""
	}
	inside, err := filepath.Rel(devices, d.disk())
	if err != nil || strings.HasPrefix(inside, "virtual/") {
		return ""
	}
	bus, place := "", ""
	at := devices
	for element := range strings.SplitSeq(inside, "/") {
		at = filepath.Join(at, element)
		switch scsi := scsiTarget.FindStringSubmatch(element); {
		case pciAddress.MatchString(element):
			bus, place = "pci-"+element, ""
		case strings.HasSuffix(element, ".virtio_mmio"):
			bus, place = "platform-"+element, ""
		case xenDevice.MatchString(element):
			bus, place = "xen-"+element, ""
		case vmbusID.MatchString(element):
			bus, place = "vmbus-"+element, ""
		case ataPort.MatchString(element):
			if port := read(filepath.Join(at, "ata_port", element, "port_no")); port != "" {
				place = "-ata-" + safe(port)
			}
		case scsi != nil && !strings.Contains(place, "-ata-"):
			place = "-scsi-0:" + scsi[1]
		}
	}
	if nsid := d.diskAttribute("nsid"); nsid != "" {
		place = "-nvme-" + safe(nsid)
	}
	if bus == "" {
		return ""
	}
	return bus + place
}

// content returns the links by what is on the device.
func (d *device) content() ([]string, error) {
	var links []string
	if d.partition > 0 {
		if id := d.partitionID(); id != "" {
			links = append(links, "disk/by-partuuid/"+id)
		}
	}
	found, err := blkid.Identify(d.node())
	if errors.Is(err, blkid.ErrUnknown) || errors.Is(err, unix.ENOMEDIUM) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENXIO) {
		return links, nil
	}
	if err != nil {
		return links, err
	}
	if found.UUID != "" {
		links = append(links, "disk/by-uuid/"+encode(found.UUID))
	}
	if found.Label != "" {
		links = append(links, "disk/by-label/"+encode(found.Label))
	}
	return links, nil
}

// partitionID returns the UUID of a partition, or for a table of DOS the
// identifier that Linux makes of that of the disk (block/partitions/msdos.c). It
// is "" if the table cannot be read.
func (d *device) partitionID() string {
	f, err := os.Open(filepath.Join(d.root, "dev", filepath.Base(d.disk())))
	if err != nil {
		return ""
	}
	defer f.Close()
	return partitionID(f, d.partition)
}

func partitionID(disk io.ReaderAt, number int) string {
	table, err := gpt.Read(disk)
	if err == nil {
		for _, p := range table.Partitions {
			if p.Number == number {
				return strings.ToLower(p.ID.String())
			}
		}
		return ""
	}
	if !errors.Is(err, gpt.ErrNoTable) {
		return ""
	}
	record, err := mbr.Read(disk)
	if err != nil || record.ID == 0 {
		return ""
	}
	return fmt.Sprintf("%08x-%02x", record.ID, number)
}
