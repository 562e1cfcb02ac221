package format

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/slipway-build/slipway/exporter"
	"github.com/slipway-build/slipway/exporter/disk/disktest"
	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/exporter/verity"
	"github.com/slipway-build/slipway/internal/contract"
)

// inputOf returns the input of a format, with an init if it needs one.
func inputOf(t *testing.T, f Format) Input {
	t.Helper()
	m := input(t, f.Segments)
	if f.Name == "raw-verity" {
		m.Segments = append(m.Segments, packed(t, f.Segments, initSpec))
	}
	return m
}

// initSpec is the spec of an init that supports dm-verity.
var initSpec = fmt.Sprintf(`[{"path":"sbin/init","type":"file","mode":493,"contents":%q}]`,
	base64.StdEncoding.EncodeToString([]byte(contract.StartupMarker+" "+verity.Reaction)))

// packed packs entries.
func packed(t *testing.T, form segment.Archive, spec string) segment.Dir {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "spec")
	if err := os.WriteFile(file, []byte(spec), 0o644); err != nil {
		t.Fatal(err)
	}
	packer := segment.Packer{Out: dir, Archive: form, Compression: segment.Compression{Algorithm: "none"}}
	if err := packer.Entries(file, ""); err != nil {
		t.Fatal(err)
	}
	return segment.ParseDir(dir)
}

// input returns the input of formats with segments of a form.
func input(t *testing.T, form segment.Archive) Input {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"kernel": "bzImage", "ucode": "ucode",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m := Input{Name: "m", Kernel: filepath.Join(dir, "kernel"), Cmdline: "quiet", Architecture: "amd64", Loaders: disktest.Loaders(t), Time: time.Unix(exporter.Epoch, 0), Compression: segment.Compression{Algorithm: "zstd", Level: 7}}
	const spec = `[{"path":"etc","type":"dir","mode":493},{"path":"etc/f","type":"file","mode":256,"contents":"YQ=="}]`
	m.Segments, m.Ucode = []segment.Dir{packed(t, form, spec)}, filepath.Join(dir, "ucode")
	return m
}

// TestTarErrors checks that no file remains after an error.
func TestTarErrors(t *testing.T) {
	m := input(t, segment.Tar)
	m.Kernel = "none"
	out := t.TempDir()
	if _, err := Write("tar", m, out, nil); err == nil || err.Error() != "tar: stat none: no such file or directory" {
		t.Errorf("error %v", err)
	}
	if left, err := os.ReadDir(out); err != nil || len(left) > 0 {
		t.Errorf("remaining files: %v, %v", left, err)
	}
}

// TestKernelForOtherArchitecture checks that no format takes a kernel that the
// machine cannot start.
func TestKernelForOtherArchitecture(t *testing.T) {
	arm64 := make([]byte, 64)
	copy(arm64[56:], "ARM\x64")
	for _, f := range All() {
		m := input(t, f.Segments)
		if err := os.WriteFile(m.Kernel, arm64, 0o644); err != nil {
			t.Fatal(err)
		}
		out := t.TempDir()
		want := f.Name + ": the kernel is for arm64, but the machine for amd64: set kernel.image to an image for amd64"
		if _, err := Write(f.Name, m, out, nil); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
		if left, err := os.ReadDir(out); err != nil || len(left) > 0 {
			t.Errorf("remaining files: %v, %v", left, err)
		}
	}
}

// TestWholeGiB checks the sizes of disks for clouds whose volumes are whole GiB.
func TestWholeGiB(t *testing.T) {
	for _, test := range []struct {
		size, want int64
	}{
		{0, 1 << 30},
		{100 << 20, 100 << 20},
		{2 << 30, 2 << 30},
	} {
		m := input(t, segment.CPIO)
		m.Size = test.size
		files, err := Write("aws", m, t.TempDir(), func(w string) { t.Error(w) })
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(files[0])
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() != test.want {
			t.Errorf("with SIZE %d, aws has %d bytes, want %d", test.size, info.Size(), test.want)
		}
	}
}
