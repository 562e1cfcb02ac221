package eif

import (
	"bytes"
	"crypto/sha512"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/exporter/sparse"
)

func testImage() Image {
	return Image{
		Architecture: "arm64",
		Kernel:       sparse.Bytes([]byte("kernel")),
		Cmdline:      "console=ttyS0",
		Ramdisks:     []sparse.Content{sparse.Bytes([]byte("init")), sparse.Bytes([]byte("services")), sparse.Bytes([]byte("files"))},
		Metadata: Metadata{
			Name:  "vault",
			Build: Build{Time: time.Unix(1_500_000_000, 0).UTC(), Tool: "slipway", OperatingSystem: "linux", KernelVersion: "6.12.1"},
		},
	}
}

// file returns the file of an image.
func file(t *testing.T, image Image) ([]byte, Measurements) {
	t.Helper()
	content, m, err := New(image)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "m.eif")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := content.WriteFile(f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data, m
}

// register computes a register as the user guide describes it.
func register(parts ...string) Digest {
	inner := sha512.Sum384([]byte(strings.Join(parts, "")))
	return sha512.Sum384(append(make([]byte, 48), inner[:]...))
}

func TestNew(t *testing.T) {
	data, m := file(t, testImage())
	want := Measurements{
		HashAlgorithm: "SHA384",
		PCR0:          register("kernel", "console=ttyS0", "init", "services", "files"),
		PCR1:          register("kernel", "console=ttyS0", "init"),
		PCR2:          register("services", "files"),
	}
	if m != want {
		t.Errorf("measurements %+v, want %+v", m, want)
	}
	if got := data[:8]; string(got) != ".eif\x00\x04\x00\x01" {
		t.Errorf("the file begins with %q", got)
	}

	image, measured, err := Read(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	if measured != want {
		t.Errorf("Read measures %+v, want %+v", measured, want)
	}
	if image.Architecture != "arm64" || image.Cmdline != "console=ttyS0" || len(image.Ramdisks) != 3 || image.Metadata.Build.Time.Unix() != 1_500_000_000 {
		t.Errorf("Read returns %+v", image)
	}
	if services, err := io.ReadAll(image.Ramdisks[1].Reader()); err != nil || string(services) != "services" {
		t.Errorf("the second ramdisk is %q, %v", services, err)
	}
}

func TestNewErrors(t *testing.T) {
	other := testImage()
	other.Architecture = "riscv64"
	many := testImage()
	many.Ramdisks = make([]sparse.Content, 30)
	for want, image := range map[string]Image{
		"there are no enclaves for riscv64":                other,
		"an enclave image has at most 32 sections, not 33": many,
	} {
		if _, _, err := New(image); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// TestReadDamaged checks that Read finds each change of a byte, and each file
// that ends early.
func TestReadDamaged(t *testing.T) {
	data, _ := file(t, testImage())
	for i := range data {
		damaged := bytes.Clone(data)
		damaged[i] ^= 0x10
		if _, _, err := Read(bytes.NewReader(damaged), int64(len(damaged))); err == nil {
			t.Errorf("Read accepts a change of byte %d", i)
		}
		if _, _, err := Read(bytes.NewReader(data[:i]), int64(i)); err == nil {
			t.Errorf("Read accepts the first %d bytes", i)
		}
	}
	if _, _, err := Read(bytes.NewReader(append(data, 0)), int64(len(data)+1)); err == nil {
		t.Error("Read accepts a byte after the last section")
	}
}

func FuzzRead(f *testing.F) {
	content, _, err := New(testImage())
	if err != nil {
		f.Fatal(err)
	}
	data, err := io.ReadAll(content.Reader())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		image, m, err := Read(bytes.NewReader(data), int64(len(data)))
		if err == nil && (image.Architecture == "" || m.HashAlgorithm == "") {
			t.Errorf("Read returns %+v and %+v", image, m)
		}
	})
}
