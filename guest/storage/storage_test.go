package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/guest/blkid"
	"github.com/slipway-build/slipway/guest/blockdev"
	"github.com/slipway-build/slipway/internal/testutil/need"
)

func holds(path, kind, label string) device {
	return device{path: path, physical: true, content: blkid.Content{Type: kind, Label: label}}
}

func disk(path string, parts ...device) device {
	d := device{path: path, physical: true}
	for i, p := range parts {
		d.partitions = append(d.partitions, partition{device: p, number: i + 1})
	}
	return d
}

// Devices that are not empty stay unchanged.
func TestChoose(t *testing.T) {
	empty := func(path string) device { return device{path: path, physical: true, empty: true} }
	var (
		root    = disk("/dev/vda", holds("/dev/vda1", "vfat", ""), device{path: "/dev/vda2", empty: true})
		data    = disk("/dev/vdb", holds("/dev/vdb1", "ext4", "data"))
		whole   = holds("/dev/vdb", "ext4", "data")
		begun   = disk("/dev/vdb", device{path: "/dev/vdb1", empty: true})
		unknown = device{path: "/dev/vdb", physical: true}
		locked  = holds("/dev/vdb", "crypto_LUKS", "data")
	)
	for _, c := range []struct {
		name  string
		r     request
		disks []device
		want  string
	}{
		{"first empty", request{kind: "ext4"}, []device{root, empty("/dev/vdb"), empty("/dev/vdc")}, "/dev/vdb create"},
		{"empty before type", request{kind: "ext4"}, []device{data, empty("/dev/vdc")}, "/dev/vdc create"},
		{"label before empty", request{kind: "ext4", label: "data"}, []device{empty("/dev/vda"), data}, "/dev/vdb1 keep"},
		{"another label", request{kind: "ext4", label: "more"}, []device{data, empty("/dev/vdc")}, "/dev/vdc create"},
		{"again", request{kind: "ext4"}, []device{root, data}, "/dev/vdb1 keep"},
		{"again, no partitions", request{kind: "ext4", label: "data"}, []device{root, whole}, "/dev/vdb keep"},
		{"interrupted", request{kind: "ext4", label: "data"}, []device{root, begun}, "/dev/vdb1 create"},
		{"another type", request{kind: "xfs", label: "data"}, []device{root, data},
			`no disk is empty; /dev/vda1 holds vfat, /dev/vda2 is empty; /dev/vdb1 holds ext4 "data"`},
		{"unknown", request{kind: "ext4"}, []device{unknown}, "no disk is empty; /dev/vdb has unknown content"},
		{"encrypted", request{kind: "ext4", label: "data"}, []device{locked}, `no disk is empty; /dev/vdb holds crypto_LUKS "data"`},
		{"no disk", request{kind: "ext4"}, nil, "this machine has no disk"},
	} {
		target, action, err := c.r.choose(c.disks)
		got := fmt.Sprintf("%s %s", target.path, []string{"refuse", "keep", "create"}[action])
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	for _, d := range []device{root, unknown, locked} {
		if _, action := (request{kind: "ext4"}).judge(d); action != refuse {
			t.Errorf("%v: action %d, want refuse", d, action)
		}
	}
}

func TestRequest(t *testing.T) {
	for want, r := range map[string]request{
		"must be ext4, xfs or btrfs":      {kind: "ext3"},
		"at most 12 bytes for xfs":        {kind: "xfs", label: "thirteenbytes"},
		"-partition mbr: must be dos or":  {kind: "ext4", table: "mbr"},
		"-type : must be ext4, xfs or bt": {},
	} {
		if err := r.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", r, err, want)
		}
	}
}

func TestIsEmpty(t *testing.T) {
	const size = 8 << 20
	for at, want := range map[int64]bool{0: false, blockdev.EmptySize - 1: false, size / 2: true, size - blockdev.EmptySize: false, size - 1: false} {
		f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte{1}, at); err != nil {
			t.Fatal(err)
		}
		if got, err := blockdev.IsEmpty(f); got != want || err != nil {
			t.Errorf("a byte at %d: empty %v, %v, want %v", at, got, err, want)
		}
	}
}

// sfdisk reads new and extended tables.
func TestTable(t *testing.T) {
	need.Program(t, "sfdisk", "fdisk")
	type table struct {
		PartitionTable struct {
			Label, ID  string
			Partitions []struct {
				Start, Size int64
				Type, UUID  string
			}
		}
	}
	const sector = 512
	for _, c := range []struct {
		kind             string
		size, grown      int64 // MiB
		label, code      string
		end, grownBefore int64 // of the partition: sectors before the end of the disk
	}{
		{"", 64, 100, "dos", "83", 0, 0},
		{"gpt", 64, 100, "gpt", "0FC63DAF-8483-4772-8E79-3D69D8477DE4", 33, 33},
		{"", 3 << 20, 4 << 20, "gpt", "0FC63DAF-8483-4772-8E79-3D69D8477DE4", 33, 33},
		{"dos", 1 << 20, 3 << 20, "dos", "83", 0, 3<<31 - (1<<32 - 1)}, // the limit of such a table
	} {
		t.Run(fmt.Sprintf("%s %d", c.kind, c.size), func(t *testing.T) {
			f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			read := func(size, before int64) table {
				t.Helper()
				out, err := exec.Command("sfdisk", "--json", f.Name()).Output()
				if err != nil {
					t.Fatal(err)
				}
				var got table
				if err := json.Unmarshal(out, &got); err != nil {
					t.Fatal(err)
				}
				p := got.PartitionTable
				if p.Label != c.label || len(p.Partitions) != 1 || p.Partitions[0].Type != c.code ||
					p.Partitions[0].Start != 2048 || p.Partitions[0].Start+p.Partitions[0].Size != size<<11-before {
					t.Errorf("table of %d MiB: %s", size, out)
				}
				return got
			}
			if err := f.Truncate(c.size << 20); err != nil {
				t.Fatal(err)
			}
			if err := writeTable(f, c.kind, c.size<<20, sector); err != nil {
				t.Fatal(err)
			}
			before := read(c.size, c.end)
			if err := f.Truncate(c.grown << 20); err != nil {
				t.Fatal(err)
			}
			end, err := growTable(f, c.grown<<20, sector, partition{number: 1, start: 1 << 20})
			if err != nil || end != c.grown<<20-c.grownBefore*sector {
				t.Errorf("grown: ends at %d, %v", end, err)
			}
			after := read(c.grown, c.grownBefore)
			if before.PartitionTable.ID != after.PartitionTable.ID || before.PartitionTable.Partitions[0].UUID != after.PartitionTable.Partitions[0].UUID {
				t.Error("growing changes identifiers")
			}
			if _, err := growTable(f, c.grown<<20, sector, partition{number: 1, start: 2 << 20}); err == nil {
				t.Error("a partition that the kernel does not have is extended")
			}
		})
	}
	for want, err := range map[string]error{
		"too large for -partition dos":                      writeTable(nil, "dos", 3<<40, sector),
		"sectors of 4096 bytes: -partition gpt requires 51": writeTable(nil, "gpt", 1<<30, 4096),
		"too small: 1048576 bytes":                          writeTable(nil, "", 1<<20, sector),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func TestMakeSwap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "swap")
	if err := allocate(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := makeSwap(path); err != nil {
		t.Fatal(err)
	}
	first, err := blkid.Identify(path)
	if err != nil || first.Type != "swap" {
		t.Fatalf("%v, %v", first, err)
	}
	if err := makeSwap(path); err != nil {
		t.Fatal(err)
	}
	if again, err := blkid.Identify(path); again != first || err != nil {
		t.Errorf("the second time %+v, %v, want %+v", again, err, first)
	}
	if err := allocate(path, 4096); err != nil {
		t.Fatal(err)
	}
	if err := makeSwap(path); err == nil {
		t.Error("a page is enough for swap")
	}
}

func TestSwapArguments(t *testing.T) {
	for text, want := range map[string]int64{
		"8765432": 8765432, "5670K": 5670 << 10, "100M": 100 << 20, "2G": 2 << 30,
		"": 0, "2T": 0, "-1": 0, "9999999999G": 0,
	} {
		if got, err := parseSize(text); got != want || (err == nil) != (want != 0) {
			t.Errorf("size %q: %d, %v, want %d", text, got, err, want)
		}
	}
	for text, want := range map[string]condition{
		"part:/var/x":               {path: "/var/x"},
		"part:/var/x:true":          {path: "/var/x", required: true},
		"partsize:/var/x:100G":      {path: "/var/x", minSize: 100 << 30},
		"partsize:/var/x:100G:true": {path: "/var/x", minSize: 100 << 30, required: true},
	} {
		if got, err := parseCondition(text); got != want || err != nil {
			t.Errorf("condition %q: %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"part", "partsize:/var/x", "partsize:/var/x:big", "size:/var/x:1G"} {
		if _, err := parseCondition(text); err == nil {
			t.Errorf("condition %q is accepted", text)
		}
	}
	for c, want := range map[condition]string{
		{path: "/proc"}:               "",
		{path: "/proc/"}:              "",
		{path: "/proc/self"}:          "/proc/self is not a mount point",
		{path: "/", minSize: 1}:       "",
		{path: "/", minSize: 1 << 60}: "less than",
		{path: "/none", minSize: 1}:   "no such file",
	} {
		got, err := c.unmet()
		if err != nil || !strings.Contains(got, want) || (got == "") != (want == "") {
			t.Errorf("%+v: unmet %q, %v, want %q", c, got, err, want)
		}
	}
}
