// Package eifjudge measures enclave images with AWS's own library, and takes them
// apart.
package eifjudge

import (
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/slipway-build/slipway/exporter/eif"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/internal/testutil/treetest"
)

var program = flag.String("eif", "", "the `program` that hack/eif builds, which some tests of enclave images run")

// Require skips the test without the program.
func Require(t *testing.T) {
	t.Helper()
	if *program == "" {
		t.Skip("no -eif: make test-boot builds the program")
	}
}

// Measure runs the program and returns the registers that it prints.
func Measure(t *testing.T, args ...string) map[string]string {
	t.Helper()
	out, err := exec.Command(*program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", args, err, out)
	}
	return Registers(t, out)
}

// Registers returns the registers of a file of measurements, which must have 0 to
// 2.
func Registers(t *testing.T, text []byte) map[string]string {
	t.Helper()
	var file struct{ Measurements map[string]string }
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	delete(file.Measurements, "HashAlgorithm")
	for _, name := range []string{"PCR0", "PCR1", "PCR2"} {
		if file.Measurements[name] == "" {
			t.Errorf("no %s in %s", name, text)
		}
	}
	return file.Measurements
}

// Read reads an enclave image, which stays open until the test ends.
func Read(t *testing.T, name string) (*eif.Image, eif.Measurements) {
	t.Helper()
	var measured eif.Measurements
	image := treetest.ReadImage(t, name, func(r io.ReaderAt, size int64) (image *eif.Image, err error) {
		image, measured, err = eif.Read(r, size)
		return image, err
	})
	return image, measured
}

// Parts returns the arguments with which the program builds an image of the same
// parts: the files of the kernel and the ramdisks, with the command line between
// them.
func Parts(t *testing.T, image *eif.Image) []string {
	t.Helper()
	dir := t.TempDir()
	parts := []string{Save(t, filepath.Join(dir, "kernel"), image.Kernel), image.Cmdline}
	for i, r := range image.Ramdisks {
		parts = append(parts, Save(t, filepath.Join(dir, strconv.Itoa(i)), r))
	}
	return parts
}

// Save writes a file and returns its name.
func Save(t *testing.T, name string, content sparse.Content) string {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(f, content.Reader())
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return name
}
