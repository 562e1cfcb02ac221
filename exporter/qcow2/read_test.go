package qcow2

import (
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
		"plain":         {"-O", "qcow2"},
		"version 2":     {"-O", "qcow2", "-o", "compat=0.10"},
		"small cluster": {"-O", "qcow2", "-o", "cluster_size=4096"},
		"compressed":    {"-c", "-O", "qcow2"},
		"zstd":          {"-c", "-O", "qcow2", "-o", "compression_type=zstd"},
	})
}

func TestReadErrors(t *testing.T) {
	damage.Rejected(t, Read, written(t, sparsetest.Small())[""], damage.Cases{
		"truncated":      {func(b []byte) []byte { return b[:70] }, "72 bytes are after the end of the file, which has 70"},
		"magic":          {func(b []byte) []byte { b[0]++; return b }, "byte 0: there is no header of version 2 or 3"},
		"clusters":       {func(b []byte) []byte { b[23] = 30; return b }, "byte 20: clusters have 2^30 bytes"},
		"backing file":   {func(b []byte) []byte { b[15] = 104; return b }, "a backing file: flatten it with qemu-img convert"},
		"encryption":     {func(b []byte) []byte { b[35] = 2; return b }, "unsupported feature: encryption"},
		"features":       {func(b []byte) []byte { b[79] = 4; return b }, "incompatible features 0x4"},
		"large disk":     {func(b []byte) []byte { b[26] = 1; return b }, "byte 24: the disk has"},
		"table":          {func(b []byte) []byte { b[42] = 1; return b }, "are after the end of the file"},
		"missing sector": {func(b []byte) []byte { return b[:len(b)-512] }, "a cluster is after the end of the file"},
	}, ErrFormat, ErrUnsupported)
}

func FuzzRead(f *testing.F) { sparsetest.Reader(Read).Fuzz(f, written(f, sparsetest.Small())) }

func written(t testing.TB, disk sparse.Content) map[string][]byte {
	c, err := New(disk)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{"": sparsetest.File(t, c)}
}
