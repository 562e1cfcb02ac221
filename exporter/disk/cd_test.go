package disk

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/testutil/need"
)

// machineRoot returns a tree for CDs.
func machineRoot() []tree.Entry {
	return tree.AddParents([]tree.Entry{tree.NewFile("etc/hostname", 0o644, "cd\n"), tree.NewFile("boot/cmdline", 0o644, "quiet")})
}

var cds = map[string]CD{
	"bios":      {BIOS: true},
	"uefi":      {UEFI: true},
	"both":      {BIOS: true, UEFI: true},
	"disk":      {BIOS: true, UEFI: true, Disk: true},
	"UEFI disk": {UEFI: true, Disk: true},
}

// xorriso, sgdisk and fsck.fat accept the CD and find what boots it.
func TestCDIsSound(t *testing.T) {
	need.Program(t, "xorriso", "xorriso")
	need.Program(t, "sgdisk", "gdisk")
	need.Program(t, "fsck.fat", "dosfstools")
	for name, cd := range cds {
		t.Run(name, func(t *testing.T) {
			d, err := NewCD(cd, contents(), machineRoot(), testLoaders(), time.Unix(0, 0))
			if err != nil {
				t.Fatal(err)
			}
			iso := filepath.Join(t.TempDir(), "test.iso")
			writeRaw(t, d, iso)
			out, err := exec.Command("xorriso", "-indev", iso, "-report_el_torito", "plain", "-report_system_area", "plain").CombinedOutput()
			if err != nil || regexp.MustCompile("WARNING|SORRY|FAILURE").Match(out) {
				t.Fatalf("xorriso: %v\n%s", err, out)
			}
			for pattern, want := range map[string]bool{
				`El Torito boot img : +\d  BIOS  y   none  0x0000  0x00      4 `: cd.BIOS,
				`El Torito boot img : +\d  UEFI  y   none  0x0000  0x00      1 `: cd.UEFI,
				`El Torito img opts : +1  boot-info-table`:                       cd.BIOS,
				`GPT partname local :   \d  EFI system`:                          cd.Disk,
				`System area summary: .*GPT`:                                     cd.Disk,
			} {
				if regexp.MustCompile(pattern).Match(out) != want {
					t.Errorf("%s in xorriso's report: want %v\n%s", pattern, want, out)
				}
			}
			for path, want := range map[string]string{
				"/boot/kernel":     "the kernel",
				"/boot/initrd.img": strings.Repeat("initrd ", 1000),
				"/etc/hostname":    "cd\n",
			} {
				file := filepath.Join(t.TempDir(), "file")
				if out, err := exec.Command("xorriso", "-osirrox", "on", "-indev", iso, "-extract", path, file).CombinedOutput(); err != nil {
					t.Errorf("xorriso: %v\n%s", err, out)
				} else if got, err := os.ReadFile(file); err != nil || string(got) != want {
					t.Errorf("%s holds %q, %v", path, got, err)
				}
			}
			if cd.Disk {
				out, err := exec.Command("sgdisk", "-v", iso).CombinedOutput()
				if err != nil || !strings.Contains(string(out), "No problems found") {
					t.Errorf("sgdisk -v: %v\n%s", err, out)
				}
			}
			if cd.UEFI {
				lba := regexp.MustCompile(`UEFI  y   none  0x0000  0x00      1 +(\d+)`).FindSubmatch(out)[1]
				esp := filepath.Join(t.TempDir(), "esp.img")
				if out, err := exec.Command("dd", "if="+iso, "of="+esp, "bs=2048", "skip="+string(lba)).CombinedOutput(); err != nil {
					t.Fatalf("dd: %v\n%s", err, out)
				}
				if out, err := exec.Command("fsck.fat", "-n", esp).CombinedOutput(); err != nil {
					t.Errorf("fsck.fat: %v\n%s", err, out)
				}
			}
		})
	}
}

// The same contents result in the same CD.
func TestCDIsDeterministic(t *testing.T) {
	for name, cd := range cds {
		var first []byte
		for range 2 {
			d, err := NewCD(cd, contents(), machineRoot(), testLoaders(), time.Unix(0, 0))
			if err != nil {
				t.Fatal(err)
			}
			iso := filepath.Join(t.TempDir(), "test.iso")
			writeRaw(t, d, iso)
			data, err := os.ReadFile(iso)
			if err != nil {
				t.Fatal(err)
			}
			if first == nil {
				first = data
			}
			if !bytes.Equal(first, data) {
				t.Errorf("%s: the second CD has other bytes", name)
			}
		}
	}
}
