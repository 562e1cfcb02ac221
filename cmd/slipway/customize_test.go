package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/disk/disktest"
	"github.com/slipway-build/slipway/exporter/diskmap"
	"github.com/slipway-build/slipway/exporter/sparse"
)

// runCustomize runs the command and returns its output.
func runCustomize(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := newCustomizeCommand()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.Execute()
	return out.String(), err
}

// TestCustomize checks that the map beside a disk follows it, and that both can be
// restored.
func TestCustomize(t *testing.T) {
	loaders, err := disk.ReadLoaders(disktest.Loaders(t), "amd64")
	if err != nil {
		t.Fatal(err)
	}
	c := disk.Contents{Kernel: sparse.Bytes([]byte("kernel")), Initrd: []sparse.Content{sparse.Bytes([]byte("initrd")).Pad(512)}, Cmdline: "quiet"}
	d, err := disk.New(disk.Hybrid, c.ReserveInitrd(4096), loaders, 0, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	raw, data := filepath.Join(dir, "m.raw"), filepath.Join(dir, "data")
	f, err := os.Create(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.WriteFile(f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	m := d.Map()
	if m.Digests, err = d.Digests(); err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := m.Write(&text); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{raw + ".map": text.Bytes(), data: []byte("#cloud-config\n")} {
		if err := os.WriteFile(name, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	digest := func() string {
		b, err := os.ReadFile(raw)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("sha256:%x", sha256.Sum256(b))
	}
	before := digest()
	out, err := runCustomize(t, "--cmdline", "worker=m-17", "--user-data", data, raw)
	if err != nil || out != digest()+"  "+raw+"\n" || digest() == before {
		t.Fatalf("%v\n%s", err, out)
	}
	checkMap(t, raw)
	out, err = runCustomize(t, "--restore", raw)
	if err != nil || out != before+"  "+raw+"\n" {
		t.Fatalf("%v\n%s, want %s", err, out, before)
	}
	if restored, err := os.ReadFile(raw + ".map"); err != nil || !bytes.Equal(restored, text.Bytes()) {
		t.Errorf("the restored map differs: %v", err)
	}
	for want, args := range map[string][]string{
		"requires --cmdline, --user-data or both": {raw},
		"or else --restore":                       {"--restore", "--cmdline", "x", raw},
		"it is no raw disk":                       {"--restore", data},
	} {
		if out, err := runCustomize(t, args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %s", args, err, out)
		}
	}
}

// checkMap checks the digests of the map of a disk.
func checkMap(t *testing.T, raw string) {
	t.Helper()
	f, err := os.Open(raw + ".map")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := diskmap.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range m.Digests {
		block := make([]byte, diskmap.BlockSize)
		copy(block, b[int64(d.Block)*diskmap.BlockSize:])
		if got := fmt.Sprintf("%x", sha256.Sum256(block)); got != d.SHA256 {
			t.Errorf("block %d has the digest %s, and %s in the map", d.Block, got, d.SHA256)
		}
	}
}
