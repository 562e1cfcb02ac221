package bootkeys

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/exporter/efivars"
	"github.com/slipway-build/slipway/internal/testutil/need"
	"github.com/slipway-build/slipway/internal/testutil/stack"
)

func written(t *testing.T) (Keys, string) {
	t.Helper()
	keys, err := New("test", time.Date(2026, 11, 28, 20, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "keys")
	if err := keys.Write(dir); err != nil {
		t.Fatal(err)
	}
	return keys, dir
}

func TestWrite(t *testing.T) {
	keys, dir := written(t)
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		if private := filepath.Ext(f.Name()) == ".key"; private != (info.Mode().Perm() == 0o600) {
			t.Errorf("%s has the mode %v", f.Name(), info.Mode())
		}
	}
	if len(files) != 13 {
		t.Errorf("%d files, want 13", len(files))
	}
	if err := keys.Write(dir); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second write: error %v, want ErrExist", err)
	}
	read, err := Read(dir)
	if err != nil || !read.DB.Certificate.Equal(keys.DB.Certificate) || !read.PK.Certificate.Equal(keys.PK.Certificate) || read.PK.Private != nil {
		t.Errorf("Read returns other certificates, or a private key: %v", err)
	}
}

// efitools finds the certificates in the signature lists, and OpenSSL verifies the
// signatures of the updates.
func TestTools(t *testing.T) {
	need.Program(t, "sig-list-to-certs", "efitools")
	need.Program(t, "openssl", "openssl")
	keys, dir := written(t)
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	for name, key := range map[string]Key{PK: keys.PK, KEK: keys.KEK, DB: keys.DB} {
		run("sig-list-to-certs", name+".esl", "out-"+name)
		found, err := filepath.Glob(filepath.Join(dir, "out-"+name+"*.der"))
		if err != nil || len(found) != 1 {
			t.Fatalf("%s: %d certificates: %v", name, len(found), err)
		}
		der, err := os.ReadFile(found[0])
		if err != nil || !bytes.Equal(der, key.Certificate.Raw) {
			t.Errorf("%s: another certificate: %v", name, err)
		}
	}
	for _, v := range keys.Variables() {
		signer := map[string]string{PK: PK, KEK: PK, DB: KEK}[v.Name]
		update, err := os.ReadFile(filepath.Join(dir, v.Name+".auth"))
		if err != nil {
			t.Fatal(err)
		}
		header := int(update[16]) | int(update[17])<<8
		signature, data := update[16+24:16+header], update[16+header:]
		name := ""
		for _, c := range v.Name {
			name += string(c) + "\x00"
		}
		message := name + string(v.Vendor[:]) + "\x27\x00\x00\x00" + string(update[:16]) + string(data)
		for file, content := range map[string]string{"message": message, "signature": string(signature)} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		run("openssl", "smime", "-verify", "-inform", "DER", "-in", "signature", "-content", "message", "-binary",
			"-noverify", "-nointern", "-certfile", signer+".crt", "-out", "/dev/null")
		if !bytes.Equal(data, v.Data) {
			t.Errorf("%s.auth contains other data", v.Name)
		}
	}
}

// AWS's python-uefivars and virt-firmware read the variables.
func TestVariables(t *testing.T) {
	aws, virtFirmware := stack.File(t, "firmware", "bin", "uefivars"), stack.File(t, "firmware", "bin", "virt-fw-vars")
	const template = "/usr/share/OVMF/OVMF_VARS_4M.fd"
	need.File(t, template, "ovmf")
	keys, dir := written(t)
	empty, err := os.ReadFile(template)
	if err != nil {
		t.Fatal(err)
	}
	store, err := efivars.AddToStore(empty, append(keys.Variables(), efivars.SecureBootEnable())...)
	if err != nil {
		t.Fatal(err)
	}
	vars := filepath.Join(dir, "vars.fd")
	if err := os.WriteFile(vars, store, 0o644); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for _, v := range keys.Variables() {
		want[v.Name] = hex.EncodeToString(v.Data)
	}

	out, err := exec.Command(aws, "-i", "aws", "-I", filepath.Join(dir, AWSFile), "-o", "json").Output()
	if err != nil {
		t.Fatalf("uefivars: %v", err)
	}
	check(t, "uefivars", out, want)

	file := filepath.Join(dir, "vars.json")
	if message, err := exec.Command(virtFirmware, "--input", vars, "--output-json", file).CombinedOutput(); err != nil {
		t.Fatalf("virt-fw-vars: %v\n%s", err, message)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want["SecureBootEnable"] = "01"
	check(t, "virt-fw-vars", data, want)
}

// check compares the variables in the JSON of a tool with others by name.
func check(t *testing.T, tool string, data []byte, want map[string]string) {
	t.Helper()
	var found struct {
		Variables []struct{ Name, Data string }
	}
	if err := json.Unmarshal(data, &found); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	got := map[string]string{}
	for _, v := range found.Variables {
		got[v.Name] = v.Data
	}
	for name, data := range want {
		if got[name] != data {
			t.Errorf("%s finds another %s: %.40s…, want %.40s…", tool, name, got[name], data)
		}
	}
}
