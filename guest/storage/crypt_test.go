//go:build !nocrypt

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/guest/blockdev"
	"github.com/slipway-build/slipway/guest/luks"
	"github.com/slipway-build/slipway/guest/tpm"
	"github.com/slipway-build/slipway/internal/testutil/need"
	"github.com/slipway-build/slipway/internal/testutil/tpmtest"
)

// sealedFile returns an empty disk with a TPM.
func sealedFile(t *testing.T, e *tpmtest.Emulator, machine string) sealedDisk {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(32 << 20); err != nil {
		t.Fatal(err)
	}
	return sealedDisk{f, "data", []int{4, 7, 11}, tpm.New(e.Boot(machine))}
}

// TestSealed checks that only the machine that initialized a disk opens it, and that
// no other header is used.
func TestSealed(t *testing.T) {
	need.Program(t, "cryptsetup", "cryptsetup-bin")
	defer func(path, dir string) { cryptsetupPath, memory = path, dir }(cryptsetupPath, memory)
	cryptsetupPath, memory = "cryptsetup", t.TempDir()
	e := tpmtest.New(t)
	d := sealedFile(t, e, "good")
	if err := d.initialize(); err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile(d.file.Name())
	if err != nil {
		t.Fatal(err)
	}
	if empty, err := blockdev.IsEmpty(d.file); err != nil || empty {
		t.Errorf("the disk is empty: %v", err)
	}
	d.tpm = tpm.New(e.Boot("good"))
	h, key, err := d.unseal()
	if err != nil || !bytes.HasPrefix(written, h.Copy) || len(key) != keySize {
		t.Fatalf("a key of %d bytes: %v", len(key), err)
	}
	// cryptsetup opens the disk with the copy of the header and the key.
	file := filepath.Join(t.TempDir(), "header")
	if err := os.WriteFile(file, h.Copy, 0o600); err != nil {
		t.Fatal(err)
	}
	test := []string{"open", "--test-passphrase", "--type", "luks", "--header", file, "--key-file", "-", d.file.Name()}
	if err := cryptsetup(key, test...); err != nil {
		t.Error(err)
	}
	if err := cryptsetup(make([]byte, keySize), test...); err == nil {
		t.Error("another key opens the disk")
	}
	if bytes.Contains(written, key) {
		t.Error("the key is on the disk")
	}

	refused := func(what, want string, d sealedDisk, content []byte) {
		t.Helper()
		if _, err := d.file.WriteAt(content, 0); err != nil {
			t.Fatal(err)
		}
		if _, key, err := d.unseal(); err == nil || !strings.Contains(err.Error(), want) || key != nil {
			t.Errorf("%s: %v, want %s", what, err, want)
		}
	}
	changed := func(change func([]byte)) []byte {
		b := bytes.Clone(written)
		change(b)
		return b
	}
	renamed := d
	renamed.name = "logs"
	refused("a disk under another name", "for another context", renamed, written)
	fewer := d
	fewer.pcrs = []int{7}
	refused("other registers", "for the PCRs 4+7+11, not 7", fewer, written)
	refused("a changed header", "does not match its checksum", d, changed(func(b []byte) { b[5000]++ }))
	refused("a null cipher", "does not match its checksum", d, bytes.ReplaceAll(written, []byte(luks.Cipher), []byte("cipher_null-ecb")))
	refused("changed key slots", "for another context", d, changed(func(b []byte) { b[2*luks.MetadataSize]++ }))
	refused("no key", "there is no sealed key", d, changed(func(b []byte) { clear(b[sealedAt:][:sealedSize]) }))
	refused("a damaged key", "the sealed key is damaged", d, changed(func(b []byte) { b[sealedAt+len(sealedMagic)]++ }))

	other := sealedFile(t, e, "good")
	if err := other.initialize(); err != nil {
		t.Fatal(err)
	}
	foreign, err := os.ReadFile(other.file.Name())
	if err != nil {
		t.Fatal(err)
	}
	d.tpm = other.tpm
	refused("the header of another disk", "for another context", d, changed(func(b []byte) { copy(b[:sealedAt], foreign) }))

	// The same emulator has one boot at a time.
	d.tpm = tpm.New(e.Boot("bad"))
	refused("another machine", "values of the PCRs 4+7+11 were others", d, written)
	d.tpm = tpm.New(tpmtest.New(t).Boot("good"))
	refused("another TPM", "another TPM did", d, written)
}

func TestNeverMounted(t *testing.T) {
	need.Program(t, "mkfs.ext4", "e2fsprogs")
	path := filepath.Join(t.TempDir(), "disk")
	if out, err := exec.Command("mkfs.ext4", "-q", path, "8M").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if unused, err := neverMounted(path); !unused || err != nil {
		t.Errorf("new: %v, %v", unused, err)
	}
	if out, err := exec.Command("tune2fs", "-C", "1", path).CombinedOutput(); err != nil { // mounted once
		t.Fatalf("%v\n%s", err, out)
	}
	if unused, err := neverMounted(path); unused || err != nil {
		t.Errorf("mounted: %v, %v", unused, err)
	}
}
