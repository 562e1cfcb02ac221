package ami_test

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/exporter/diskmap"
	"github.com/slipway-build/slipway/publisher/ami"
	"github.com/slipway-build/slipway/publisher/awstest"
	"github.com/slipway-build/slipway/publisher/disk"
)

// writeWithMap writes a disk, and beside it a map with the digests of claimed.
func writeWithMap(t *testing.T, data, claimed []byte) *disk.Disk {
	t.Helper()
	path := filepath.Join(t.TempDir(), "machine.raw")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	m := diskmap.Map{Version: diskmap.Version, Size: int64(len(data)), Extents: []diskmap.Extent{{Length: int64(len(data)), Type: diskmap.Data}}}
	for _, b := range write(t, claimed).Blocks {
		m.Digests = append(m.Digests, diskmap.Digest{Block: b.Index, SHA256: hex.EncodeToString(b.Sum[:])})
	}
	var text bytes.Buffer
	if err := m.Write(&text); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".map", text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return open(t, path)
}

// TestForeignMap checks that a map with the digests of another disk leads to no
// image of the other disk, and to none with another name for its content. The
// disks differ in one block, so that the sample of digests is right.
func TestForeignMap(t *testing.T) {
	t.Parallel()
	published := content(1, 60)
	other := bytes.Clone(published)
	other[9*disk.BlockSize+5] ^= 1 // the seventh with data: every fifth is a sample
	for what, test := range map[string]struct {
		before  bool // the other disk was published before
		options ami.Options
	}{
		"a new disk":                    {false, ami.Options{}},
		"an image with the same digest": {true, ami.Options{}},
		"a snapshot":                    {true, ami.Options{Name: "machine-2"}},
		"a parent":                      {true, ami.Options{Name: "machine-2", Parent: "auto", VolumeSize: 2}},
		"an encrypted disk":             {false, ami.Options{Encrypt: true}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			fake := awstest.StartTLS(t, awstest.Knobs{}) // the block that differs does not match its digest
			if test.before {
				mustPublish(t, fake, write(t, published), ami.Options{})
			}
			images := fake.Count("ec2:RegisterImage")
			_, err := publish(t.Context(), t, fake, writeWithMap(t, other, published), test.options)
			if ami.ClassOf(err) != ami.ClassDisk || !strings.Contains(err.Error(), "does not match its map") {
				t.Errorf("got class %d: %v", ami.ClassOf(err), err)
			}
			if n := fake.Count("ec2:RegisterImage") - images; n > 1 { // the dry run of the preflight
				t.Errorf("%d images were registered", n-1)
			}
			noOrphans(t, fake)
		})
	}
	fake := start(t, awstest.Knobs{})
	image := mustPublish(t, fake, writeWithMap(t, published, published), ami.Options{}).Images[0]
	equal(t, fake, home, image.Snapshot, published)
	if _, err := ami.Verify(t.Context(), configure(t, fake), image.Image, writeWithMap(t, other, published), ami.Options{}); err == nil || !strings.Contains(err.Error(), "does not match its map") {
		t.Errorf("verify: %v", err)
	}
	if again := mustPublish(t, fake, writeWithMap(t, published, published), ami.Options{}).Images[0]; again.Image != image.Image || !again.Existing {
		t.Errorf("again: %+v, want %s", again, image.Image)
	}
}
