package vhd

import (
	"encoding/binary"
	"testing"
	"time"

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
		"dynamic": {"-O", "vpc", "-o", "force_size=on"},
		"fixed":   {"-O", "vpc", "-o", "subformat=fixed,force_size=on"},
	})
}

func TestReadErrors(t *testing.T) {
	files := written(t, sparsetest.Small())
	damage.Rejected(t, Read, files["fixed"], damage.Cases{
		"truncated": {func(b []byte) []byte { return b[:70] }, "512 bytes are after the end of the file, which has 70"},
		"footer":    {func(b []byte) []byte { return b[:len(b)-512] }, "there is no footer"},
		"checksum":  {func(b []byte) []byte { b[len(b)-1]++; return b }, "the footer has a wrong checksum"},
		"short":     {func(b []byte) []byte { return b[512:] }, "but there are"},
	}, ErrFormat, ErrUnsupported)
	damage.Rejected(t, Read, files["dynamic"], damage.Cases{
		"header":       {func(b []byte) []byte { b[512]++; return b }, "there is no header of a dynamic disk"},
		"table":        {func(b []byte) []byte { b[1536] = 1; return b }, "block 0 is after the end of the file"},
		"differencing": {differencing, "unsupported kind of VHD: type 4"},
	}, ErrFormat, ErrUnsupported)
}

func FuzzRead(f *testing.F) { sparsetest.Reader(Read).Fuzz(f, written(f, sparsetest.Small())) }

func written(t testing.TB, disk sparse.Content) map[string][]byte {
	files := map[string][]byte{}
	for name, write := range map[string]func(sparse.Content, [16]byte, time.Time) (sparse.Content, error){"fixed": Fixed, "dynamic": Dynamic} {
		c, err := write(disk, [16]byte{}, time.Unix(315532800, 0))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = sparsetest.File(t, c)
	}
	return files
}

// differencing changes the type in the footer.
func differencing(b []byte) []byte {
	footer := b[len(b)-sectorSize:]
	footer[63] = 4
	copy(footer[64:], make([]byte, 4))
	binary.BigEndian.PutUint32(footer[64:], checksum(footer))
	return b
}
