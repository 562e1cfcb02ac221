package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/disk/disktest"
	"github.com/slipway-build/slipway/exporter/diskmap"
	"github.com/slipway-build/slipway/exporter/measure"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/exporter/uki"
	"github.com/slipway-build/slipway/internal/image"
	"github.com/slipway-build/slipway/internal/testutil/need"
	"github.com/slipway-build/slipway/internal/testutil/signkey"
)

// newDisk writes a disk with a unified kernel image and its map.
func newDisk(t *testing.T, signer *uki.Signer) string {
	t.Helper()
	loaders, err := disk.ReadLoaders(disktest.Loaders(t), "amd64")
	if err != nil {
		t.Fatal(err)
	}
	d, err := disk.New(disk.UKI, disk.Contents{Kernel: sparse.Bytes(disktest.Kernel("6.12.0")), Cmdline: "quiet", Signer: signer}, loaders, 0, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	m := d.Map()
	if m.Digests, err = d.Digests(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "test.img")
	for file, write := range map[string]func(*os.File) error{name: d.WriteFile, name + ".map": func(f *os.File) error { return m.Write(f) }} {
		f, err := os.Create(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(write(f), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return name
}

// runSign runs slipway sign.
func runSign(args ...string) error {
	cmd := newCommand()
	cmd.SetArgs(append([]string{"sign"}, args...))
	cmd.SetOut(io.Discard)
	cmd.SetErr(io.Discard)
	return cmd.Execute()
}

// A disk that was signed later, by a key in a file, by a command and in KMS, has the
// same bytes. The signature is valid, and a later one replaces it.
func TestSign(t *testing.T) {
	need.Program(t, "openssl", "openssl")
	dir := t.TempDir()
	files := map[string]string{}
	write := func(name string, data []byte, mode os.FileMode) {
		files[name] = filepath.Join(dir, name)
		if err := os.WriteFile(files[name], data, mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"first", "second"} {
		key, certificate := signkey.PEM(t, name)
		write(name+".key", key, 0o600)
		write(name+".crt", certificate, 0o644)
	}
	// In place of the AWS CLI.
	write("aws", []byte("#!/bin/sh\n[ \"$1 $2 $4 $8\" = 'kms sign arn:aws:kms:x RAW' ] || exit 1\nopenssl dgst -sha256 -sign "+files["first.key"]+" | base64 -w 0\n"), 0o755)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))

	var first []byte
	for name, args := range map[string][]string{
		"key":     {"--key", files["first.key"]},
		"command": {"--command", "openssl dgst -sha256 -sign " + files["first.key"]},
		"KMS":     {"--kms", "arn:aws:kms:x"},
	} {
		file := newDisk(t, new(uki.Signer))
		if err := runSign(append(args, "--cert", files["first.crt"], file)...); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = data
		}
		if !bytes.Equal(data, first) {
			t.Errorf("%s: the disk has other bytes", name)
		}
		checkSigned(t, file, "CN=first")
		if err := runSign("--key", files["second.key"], "--cert", files["second.crt"], file); err != nil {
			t.Fatal(err)
		}
		checkSigned(t, file, "CN=second")
	}

	for want, args := range map[string][]string{
		"build with --build-arg SIGN=later":           {"--key", files["first.key"], "--cert", files["first.crt"], newDisk(t, nil)},
		"the signature is not by the key of the cert": {"--command", "openssl dgst -sha256 -sign " + files["second.key"], "--cert", files["first.crt"], newDisk(t, new(uki.Signer))},
		"exit status 1":                    {"--command", "exit 1", "--cert", files["first.crt"], newDisk(t, new(uki.Signer))},
		"neither a raw disk nor a unified": {"--key", files["first.key"], "--cert", files["first.crt"], files["first.crt"]},
	} {
		if err := runSign(args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

// checkSigned checks the signature of a disk, and its map.
func checkSigned(t *testing.T, name, signer string) {
	t.Helper()
	i, err := image.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	if len(i.Warnings) > 0 || len(i.Loaders) != 1 || len(i.Loaders[0].Signers) != 1 || i.Loaders[0].Signers[0].Subject != signer {
		t.Errorf("warnings %q, loaders %+v, want one signed by %s", i.Warnings, i.Loaders, signer)
	}
	f, err := os.Open(name + ".map")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := diskmap.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	var files sparse.Files
	defer files.Close()
	content, err := files.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	want, err := content.Digests()
	if err != nil || len(m.Digests) != len(want) {
		t.Fatalf("%d digests, want %d: %v", len(m.Digests), len(want), err)
	}
	for i, d := range want {
		if m.Digests[i] != d {
			t.Errorf("the map has another digest of block %d", d.Block)
		}
	}
}

// unsignedProgram returns a program with room for a signature.
func unsignedProgram(t *testing.T) []byte {
	t.Helper()
	program, err := uki.Sign(sparse.Bytes(disktest.Program(0x8664, 0x400)), new(uki.Signer))
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, program.Size)
	if _, err := program.ReadAt(data, 0); err != nil {
		t.Fatal(err)
	}
	return data
}

// sbverify accepts what SignFile signed in a file.
func TestSignUKI(t *testing.T) {
	need.Program(t, "sbverify", "sbsigntool")
	key, certificate := signkey.PEM(t, "test")
	dir := t.TempDir()
	for name, content := range map[string][]byte{"key": key, "crt": certificate, "test.efi": unsignedProgram(t)} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	verify := func() error {
		return exec.Command("sbverify", "--cert", filepath.Join(dir, "crt"), filepath.Join(dir, "test.efi")).Run()
	}
	if verify() == nil {
		t.Error("sbverify accepts a program with room for a signature")
	}
	if err := runSign("--key", filepath.Join(dir, "key"), "--cert", filepath.Join(dir, "crt"), filepath.Join(dir, "test.efi")); err != nil {
		t.Fatal(err)
	}
	if err := verify(); err != nil {
		t.Errorf("sbverify: %v", err)
	}
}

// The policy names the registers of the machine, and the role.
func TestKMSPolicy(t *testing.T) {
	m := &measure.Measurements{PCRs: map[string]map[string]string{"sha384": {"4": "aa", "7": "bb", "12": "cc"}}}
	var b bytes.Buffer
	if err := printJSON(&b, kmsPolicy(m, "arn:aws:iam::123456789012:role/aws")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"AWS": "arn:aws:iam::123456789012:role/aws"`, `"kms:RecipientAttestation:NitroTPMPCR4": "aa"`,
		`"kms:RecipientAttestation:NitroTPMPCR7": "bb"`, `"kms:RecipientAttestation:NitroTPMPCR12": "cc"`, `"kms:Decrypt"`,
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in\n%s", want, b.String())
		}
	}
}
