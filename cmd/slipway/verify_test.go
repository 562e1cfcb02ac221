package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/exporter/uki"
	"github.com/slipway-build/slipway/internal/testutil/signkey"
)

// openDisk opens a disk as what slipway verify compares.
func openDisk(t *testing.T, name string) *subject {
	t.Helper()
	s, err := openSubject(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.close() })
	return s
}

// A signed disk is what builds without the key, apart from its signature. A changed
// one is not.
func TestVerifySigned(t *testing.T) {
	key, certificate := signkey.PEM(t, "test")
	dir := t.TempDir()
	for name, content := range map[string][]byte{"key": key, "crt": certificate} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	signed := newDisk(t, new(uki.Signer))
	if err := runSign("--key", filepath.Join(dir, "key"), "--cert", filepath.Join(dir, "crt"), signed); err != nil {
		t.Fatal(err)
	}
	rebuilt := func(s *uki.Signer) *os.File {
		t.Helper()
		f, err := os.OpenFile(newDisk(t, s), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	s := openDisk(t, signed)
	if s.architecture != "amd64" {
		t.Errorf("the disk is for %q", s.architecture)
	}
	later := rebuilt(new(uki.Signer))
	if _, at, err := firstDifference(t.Context(), s, later); err != nil || at < 0 {
		t.Errorf("without the signature the disks are the same: %v", err)
	}
	signatures, err := s.copySignatures(later)
	if err != nil || len(signatures) != 1 || signatures[0].Certificate.Subject.CommonName != "test" {
		t.Fatalf("%d signatures: %v", len(signatures), err)
	}
	if sum, at, err := firstDifference(t.Context(), s, later); err != nil || at >= 0 || len(sum) != 32 {
		t.Errorf("byte %d differs: %v", at, err)
	}

	// A disk that was not built for signatures is another one.
	unsigned := rebuilt(nil)
	if signatures, err := s.copySignatures(unsigned); err != nil || signatures != nil {
		t.Errorf("%d signatures: %v", len(signatures), err)
	}
	_, at, err := firstDifference(t.Context(), s, unsigned)
	if err != nil || at < 0 {
		t.Errorf("the disks are the same: %v", err)
	}
	var out bytes.Buffer
	if err := s.explain(&out, unsigned, at); err != nil || !strings.Contains(out.String(), "loader for UEFI amd64: ") || !strings.Contains(out.String(), "first byte that differs is ") {
		t.Errorf("%v: %s", err, &out)
	}

	data, err := os.ReadFile(signed)
	if err != nil {
		t.Fatal(err)
	}
	data[bytes.Index(data, []byte("quiet"))]++
	changed := filepath.Join(dir, "changed.img")
	if err := os.WriteFile(changed, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openDisk(t, changed).copySignatures(rebuilt(new(uki.Signer))); !errors.Is(err, uki.ErrSignature) {
		t.Errorf("a changed command line: %v", err)
	}
}

func TestVerifyUsage(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"a.lock.yml": "version: 1\nimages: {}\n", "b.lock.yml": "version: 2\n", "b.yml": "", "c.lock.yml": "version: 1\nimages: {}\n", "c.yml": "", "a.raw": "x"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	for want, args := range map[string][]string{
		"requires one disk":             {"--lock", file("a.lock.yml")},
		"--key verifies disks in reg":   {"--key", "k", file("a.raw")},
		"need --lock":                   {"--key", "k", "--statement", "s", "oci://localhost/m"},
		"a lock ends in .lock.yml":      {"--lock", file("a.yml"), file("a.raw")},
		"no machine YAML":               {"--lock", file("a.lock.yml"), file("a.raw")},
		"version 2 is not supported":    {"--lock", file("b.lock.yml"), file("a.raw")},
		"at least one of the flags":     {file("a.raw")},
		"unknown flag: --pus":           {"--lock", file("c.lock.yml"), file("a.raw"), "--", "--pus"},
		"only flags of slipway build":   {"--lock", file("c.lock.yml"), file("a.raw"), "--", "--output", "x"},
		"the format is not known":       {"--lock", file("c.lock.yml"), file("a.lock.yml")},
		"requires one disk, or one ref": {"--lock", file("b.lock.yml"), file("a.raw"), file("a.raw")},
	} {
		if _, err := runCommand(t, append([]string{"verify"}, args...)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", args, err, want)
		}
	}
}
