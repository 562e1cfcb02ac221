package disklink

import (
	"encoding/binary"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-build/slipway/exporter/mbr"
)

// A machine is a fake /sys and /dev.
type machine struct {
	t    *testing.T
	root string
}

func newMachine(t *testing.T) machine {
	root := t.TempDir()
	for _, dir := range []string{"sys/class/block", "sys/devices", "dev"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return machine{t, root}
}

func (m machine) write(name string, content []byte) {
	m.t.Helper()
	path := filepath.Join(m.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// add adds a device with its attributes and content.
func (m machine) add(dir string, content []byte, attributes map[string]string) {
	m.t.Helper()
	name := filepath.Base(dir)
	attributes["size"] = "204800"
	for key, value := range attributes {
		m.write(filepath.Join("sys/devices", dir, key), []byte(value+"\n"))
	}
	m.write(filepath.Join("dev", name), content)
	if err := os.Symlink(filepath.Join("../../devices", dir), filepath.Join(m.root, "sys/class/block", name)); err != nil {
		m.t.Fatal(err)
	}
}

// links returns all links in /dev.
func (m machine) links() map[string]string {
	m.t.Helper()
	links := map[string]string{}
	dev := filepath.Join(m.root, "dev")
	err := filepath.WalkDir(dev, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Type()&fs.ModeSymlink == 0 {
			return err
		}
		target, err := os.Readlink(path)
		links[strings.TrimPrefix(path, dev+"/")] = target
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return links
}

func (m machine) expect(want map[string]string) {
	m.t.Helper()
	if diff := cmp.Diff(want, m.links()); diff != "" {
		m.t.Errorf("-want +got\n%s", diff)
	}
}

// ext4 returns the beginning of a filesystem.
func ext4(label string) []byte {
	b := make([]byte, 4096)
	copy(b[1024+56:], "\x53\xef")
	copy(b[1024+120:], label)
	copy(b[1024+104:], "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10")
	return b
}

const uuid = "01020304-0506-0708-090a-0b0c0d0e0f10"

func TestVolume(t *testing.T) {
	m := newMachine(t)
	table := mbr.Table{ID: 0xbeef}
	table.Partitions[0] = mbr.Partition{Type: mbr.TypeLinux, First: 2048, Sectors: 100}
	disk, err := table.Encode()
	if err != nil {
		t.Fatal(err)
	}
	const dir = "pci0000:00/0000:00:04.0/nvme/nvme1/nvme1n1"
	m.add(dir, disk, map[string]string{
		"device/model": "Amazon Elastic Block Store              ", "device/serial": "vol0123456789abcdef0", "nsid": "1",
		"wwid": "nvme.1d0f-766f6c30-416d617a6f6e-00000001",
	})
	m.add(dir+"/nvme1n1p1", ext4("my data/.."), map[string]string{"partition": "1"})
	k := New(m.root)
	for _, name := range []string{"nvme1n1", "nvme1n1p1"} {
		if err := k.Update(name); err != nil {
			t.Error(err)
		}
	}
	m.expect(map[string]string{
		"disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0":         "../../nvme1n1",
		"disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0_1":       "../../nvme1n1",
		"disk/by-id/nvme-nvme.1d0f-766f6c30-416d617a6f6e-00000001":                "../../nvme1n1",
		"disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0-part1":   "../../nvme1n1p1",
		"disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0_1-part1": "../../nvme1n1p1",
		"disk/by-id/nvme-nvme.1d0f-766f6c30-416d617a6f6e-00000001-part1":          "../../nvme1n1p1",
		"disk/by-path/pci-0000:00:04.0-nvme-1":                                    "../../nvme1n1",
		"disk/by-path/pci-0000:00:04.0-nvme-1-part1":                              "../../nvme1n1p1",
		"disk/by-partuuid/0000beef-01":                                            "../../nvme1n1p1",
		"disk/by-uuid/" + uuid:                                                    "../../nvme1n1p1",
		`disk/by-label/my\x20data\x2f..`:                                          "../../nvme1n1p1",
	})
	// The volume is detached.
	for _, name := range []string{"nvme1n1", "nvme1n1p1"} {
		if err := os.Remove(filepath.Join(m.root, "sys/class/block", name)); err != nil {
			t.Fatal(err)
		}
		if err := k.Update(name); err != nil {
			t.Error(err)
		}
	}
	m.expect(map[string]string{})
	if len(k.links) > 0 || len(k.owners) > 0 {
		t.Errorf("remembers %v and %v", k.links, k.owners)
	}
}

// Two devices with the same content share links, and a new filesystem replaces
// them.
func TestChanges(t *testing.T) {
	m := newMachine(t)
	m.add("pci0000:00/0000:00:05.0/virtio2/block/vda", ext4("data"), map[string]string{"serial": "one"})
	m.add("pci0000:00/0000:00:1f.2/ata3/host2/target2:0:0/2:0:0:0/block/sda", ext4("data"), map[string]string{"device/wwid": "naa.5000c500a1b2c3d4"})
	m.write("sys/devices/pci0000:00/0000:00:1f.2/ata3/ata_port/ata3/port_no", []byte("3\n"))
	m.add("virtual/block/loop0", ext4("data"), map[string]string{})
	k := New(m.root)
	update := func() {
		t.Helper()
		for _, name := range []string{"vda", "sda", "loop0"} {
			if err := k.Update(name); err != nil {
				t.Error(err)
			}
		}
	}
	update()
	fixed := map[string]string{
		"disk/by-id/virtio-one":               "../../vda",
		"disk/by-path/pci-0000:00:05.0":       "../../vda",
		"disk/by-id/wwn-0x5000c500a1b2c3d4":   "../../sda",
		"disk/by-id/scsi-35000c500a1b2c3d4":   "../../sda",
		"disk/by-path/pci-0000:00:1f.2-ata-3": "../../sda",
	}
	with := func(label, byLabel, byUUID string) map[string]string {
		links := map[string]string{"disk/by-label/data": byLabel, "disk/by-uuid/" + uuid: byUUID}
		for link, target := range fixed {
			links[link] = target
		}
		if label != "" {
			links["disk/by-label/"+label] = "../../vda"
		}
		return links
	}
	m.expect(with("", "../../vda", "../../vda"))
	m.write("dev/vda", ext4(".."))
	update()
	m.expect(with(`\x2e\x2e`, "../../sda", "../../vda"))
	m.write("dev/vda", make([]byte, 4096))
	update()
	m.expect(with("", "../../sda", "../../sda"))
}

// A link replaces no device.
func TestOccupied(t *testing.T) {
	m := newMachine(t)
	m.write("dev/sdf", nil)
	k := New(m.root)
	k.owners["sdf"] = []string{"nvme1n1"}
	if err := k.point("sdf"); err != nil {
		t.Error(err)
	}
	m.expect(map[string]string{})
	k.owners["sdf"] = nil
	if err := k.point("sdf"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(m.root, "dev/sdf")); err != nil {
		t.Error(err)
	}
}

func TestIdentify(t *testing.T) {
	for _, c := range []struct {
		vendor      uint16
		model, name string
		want        string
	}{
		{0x1d0f, modelEBS, "/dev/sdf                        ", "sdf"},
		{0x1d0f, modelEBS, "xvdba\x00\x00", "xvdba"},
		{0x1d0f, modelEBS, "sda1", "sda1"},
		{0x1d0f, modelEBS, "/dev/../etc/passwd", ""},
		{0x1d0f, modelEBS, "null", ""},
		{0x1d0f, modelEBS, "", ""},
		{0x1b36, modelEBS, "/dev/sdf", ""},
		{0x1d0f, modelStore, "ephemeral0:sdb", "sdb"},
		{0x1d0f, modelStore, "ephemeral0:none", ""},
	} {
		data := make([]byte, identifySize)
		binary.LittleEndian.PutUint16(data, c.vendor)
		copy(data[24:64], c.model+strings.Repeat(" ", 40))
		copy(data[3072:], c.name)
		if got := parseIdentify(data); got != c.want {
			t.Errorf("%q: got %q, want %q", c.name, got, c.want)
		}
	}
	if got := parseIdentify(nil); got != "" {
		t.Errorf("no data: %q", got)
	}
}
