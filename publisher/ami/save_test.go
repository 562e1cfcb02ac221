package ami_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/slipway-build/slipway/publisher/ami"
	"github.com/slipway-build/slipway/publisher/awstest"
	"github.com/slipway-build/slipway/publisher/disk"
)

// TestSave reads the disk of an AMI, whose volume is larger.
func TestSave(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{})
	data := content(1, 9)
	clear(data[3*disk.BlockSize:][:disk.BlockSize])
	image := mustPublish(t, fake, write(t, data), ami.Options{}).Images[0]
	for _, id := range []string{image.Image, image.Snapshot} {
		file, err := os.Create(filepath.Join(t.TempDir(), "disk"))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if err := ami.Save(t.Context(), configure(t, fake), id, file, ami.Options{Workers: 4, Rate: 950, Timeout: 2 * time.Second}); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(file.Name())
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != 1<<30 || !bytes.Equal(got[:len(data)], data) || len(bytes.Trim(got[len(data):], "\x00")) > 0 {
			t.Errorf("%s: %d bytes, which are not those of the disk", id, len(got))
		}
	}
	for _, id := range []string{"i-1", "ami-0123456789abcdef0", "snap-0123456789abcdef0"} {
		if err := ami.Save(t.Context(), configure(t, fake), id, nil, ami.Options{Workers: 4, Rate: 950, Timeout: 2 * time.Second}); err == nil {
			t.Errorf("%s can be saved", id)
		}
	}
}
