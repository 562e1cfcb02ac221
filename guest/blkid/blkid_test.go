package blkid

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/need"
)

// Filesystems made by their own tools.
func TestIdentify(t *testing.T) {
	const id = "01234567-89ab-cdef-0123-456789abcdef"
	const luks = "cryptsetup luksFormat -q --pbkdf-force-iterations 1000 --key-file /proc/version --uuid " + id
	need.Program(t, "mkfs.ext4", "e2fsprogs")
	need.Program(t, "mkfs.xfs", "xfsprogs")
	need.Program(t, "mkfs.btrfs", "btrfs-progs")
	need.Program(t, "mkfs.vfat", "dosfstools")
	need.Program(t, "mkswap", "util-linux")
	need.Program(t, "cryptsetup", "cryptsetup-bin")
	need.Program(t, "mkfs.erofs", "erofs-utils")
	need.Program(t, "mksquashfs", "squashfs-tools")
	need.Program(t, "xorriso", "xorriso")
	dir := t.TempDir()
	for _, c := range []struct {
		command string
		want    Content
	}{
		{"mkfs.ext4 -q -L data -U " + id, Content{"ext4", "data", id}},
		{"mkfs.ext4 -q -O ^has_journal", Content{Type: "ext4"}},
		{"mkfs.xfs -q -f -L data -m uuid=" + id, Content{"xfs", "data", id}},
		{"mkfs.btrfs -q -f -L data -U " + id, Content{"btrfs", "data", id}},
		{"mkfs.vfat -n CIDATA -i 0123abcd -F 32", Content{"vfat", "CIDATA", "0123-ABCD"}},
		{"mkfs.vfat -n CIDATA -i 0123abcd -F 16", Content{"vfat", "CIDATA", "0123-ABCD"}},
		{"mkfs.vfat -i 0123abcd -F 16", Content{"vfat", "", "0123-ABCD"}},
		{"mkswap -q -L data -U " + id, Content{"swap", "data", id}},
		{luks + " --type luks2 --pbkdf pbkdf2 --label data", Content{"crypto_LUKS", "data", id}},
		{luks + " --type luks1", Content{"crypto_LUKS", "", id}},
		{"mkfs.erofs --quiet -U " + id + " DEVICE .", Content{"erofs", "", id}},
		{"mksquashfs . DEVICE -noappend -quiet -no-progress", Content{Type: "squashfs"}},
		{"xorriso -as mkisofs -quiet -V cidata -o DEVICE .", Content{"iso9660", "cidata", ""}},
	} {
		t.Run(c.command, func(t *testing.T) {
			device := filepath.Join(dir, "device")
			words := strings.Fields(c.command)
			if i := slices.Index(words, "DEVICE"); i >= 0 {
				words[i] = device
			} else {
				words = append(words, device)
			}
			if err := os.WriteFile(device, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(device, 320<<20); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			got, err := Identify(device)
			if c.want.UUID == "" {
				got.UUID = ""
			}
			if got != c.want || err != nil {
				t.Errorf("%+v, %v, want %+v", got, err, c.want)
			}
		})
	}
	if _, err := Probe(strings.NewReader("\x53\xef")); err != ErrUnknown {
		t.Errorf("two bytes: %v, want %v", err, ErrUnknown)
	}
}
