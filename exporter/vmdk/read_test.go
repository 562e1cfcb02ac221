package vmdk

import (
	"bytes"
	"testing"

	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/internal/testutil/damage"
	"github.com/slipway-build/slipway/internal/testutil/sparsetest"
)

// Read returns what was written.
func TestRead(t *testing.T) {
	want := sparsetest.Disk(t)
	sparsetest.Reader(Read).Reads(t, written(t, want), want)
}

// Read returns what qemu-img wrote.
func TestReadQEMU(t *testing.T) {
	sparsetest.Reader(Read).ReadsQEMU(t, map[string][]string{
		"stream-optimized": {"-O", "vmdk", "-o", "subformat=streamOptimized"},
		"sparse":           {"-O", "vmdk", "-o", "subformat=monolithicSparse"},
	})
}

func TestReadErrors(t *testing.T) {
	damage.Rejected(t, Read, written(t, sparsetest.Small())[""], damage.Cases{
		"truncated":   {func(b []byte) []byte { return b[:70] }, "512 bytes are after the end of the file, which has 70"},
		"magic":       {func(b []byte) []byte { b[0]++; return b }, "byte 0: there is no header"},
		"footer":      {func(b []byte) []byte { return b[:len(b)-512] }, "there is no header"},
		"grains":      {func(b []byte) []byte { b[len(b)-1024+20] = 3; return b }, "in grains of 3"},
		"compression": {func(b []byte) []byte { b[len(b)-1024+77] = 9; return b }, "unsupported feature: compression 9"},
	}, ErrFormat, ErrUnsupported)
}

func FuzzRead(f *testing.F) { sparsetest.Reader(Read).Fuzz(f, written(f, sparsetest.Small())) }

func written(t testing.TB, disk sparse.Content) map[string][]byte {
	var b bytes.Buffer
	if err := Write(&b, disk, "disk.vmdk", 1); err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{"": b.Bytes()}
}
