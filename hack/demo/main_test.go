package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestMeasure(t *testing.T) {
	zeros := func(n int) []byte { return make([]byte, n) }
	for _, c := range []struct {
		name       string
		contents   []byte
		size, data int64
	}{
		{"empty", nil, 0, 0},
		{"all zero", zeros(3 * 4096), 3 * 4096, 0},
		{"one byte in the second block", append(zeros(8191), 1), 8192, 4096},
		{"part of a block at the end", append(zeros(4096), 1, 2, 3), 4099, 3},
		{"zeros at the end", append(bytes.Repeat([]byte{1}, 4096), zeros(100)...), 4196, 4096},
	} {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, c.contents, 0o644); err != nil {
			t.Fatal(err)
		}
		size, data, err := measure(file)
		if err != nil || size != c.size || data != c.data {
			t.Errorf("%s: size %d, data %d, error %v; want %d and %d", c.name, size, data, err, c.size, c.data)
		}
	}
}
