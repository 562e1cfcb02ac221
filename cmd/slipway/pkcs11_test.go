package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/exporter/uki"
	"github.com/slipway-build/slipway/internal/testutil/need"
	"github.com/slipway-build/slipway/internal/testutil/signkey"
)

const softHSM = "/usr/lib/softhsm/libsofthsm2.so"

// TestSignPKCS11 signs disks with keys of two tokens of SoftHSM. They have the same
// bytes as those that the same keys in files sign.
func TestSignPKCS11(t *testing.T) {
	need.Program(t, "pkcs11-tool", "opensc")
	need.Program(t, "softhsm2-util", "softhsm2")
	need.Program(t, "sbverify", "sbsigntool")
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, data string) {
		if err := os.WriteFile(file(name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(file("tokens"), 0o700); err != nil {
		t.Fatal(err)
	}
	write("softhsm.conf", "directories.tokendir = "+file("tokens")+"\n")
	t.Setenv("SOFTHSM2_CONF", file("softhsm.conf"))
	t.Setenv(pinVariable, "")
	softhsm := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("softhsm2-util", args...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	for _, token := range []string{"boot; keys", "other"} {
		softhsm("--init-token", "--free", "--label", token, "--pin", "1234", "--so-pin", "5678")
	}
	// The keys of the first token. pkcs11-tool itself signs with the first one if it
	// has only a label.
	want := map[string][]byte{}
	for i, name := range []string{"first", "second"} {
		key, certificate := signkey.PEM(t, name)
		write(name+".key", string(key))
		write(name+".crt", string(certificate))
		softhsm("--import", file(name+".key"), "--token", "boot; keys", "--label", name, "--id", fmt.Sprintf("%02x", 0x3a+i), "--pin", "1234")
		signed := newDisk(t, new(uki.Signer))
		if err := runSign("--key", file(name+".key"), "--cert", file(name+".crt"), signed); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(signed)
		if err != nil {
			t.Fatal(err)
		}
		want[name] = data
	}
	softhsm("--import", file("first.key"), "--token", "boot; keys", "--label", "twice", "--id", "50", "--pin", "1234")
	softhsm("--import", file("second.key"), "--token", "boot; keys", "--label", "twice", "--id", "51", "--pin", "1234")
	write("pin", "1234\n")
	write("wrong", "4321\n")

	const token = "pkcs11:token=boot%3b%20keys;"
	module := "?module-path=" + softHSM
	source := module + "&pin-source=file:" + file("pin")
	for uri, name := range map[string]string{
		token + "object=first;type=private" + source:                                       "first",
		token + "object=second" + source:                                                   "second",
		token + "id=%3b" + source:                                                          "second",
		token + "object=twice;id=%50" + module + "&pin-source=" + file("pin"):              "first",
		"pkcs11:manufacturer=SoftHSM%20project;token=boot%3b%20keys;object=first" + source: "first",
	} {
		signed := newDisk(t, new(uki.Signer))
		if err := runSign("--pkcs11", uri, "--cert", file(name+".crt"), signed); err != nil {
			t.Errorf("%s: %v", uri, err)
			continue
		}
		data, err := os.ReadFile(signed)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(data, want[name]) {
			t.Errorf("%s: the disk has other bytes than with the key in a file", uri)
		}
		checkSigned(t, signed, "CN="+name)
	}

	unsigned := newDisk(t, new(uki.Signer))
	for uri, want := range map[string]string{
		token + "object=first" + module:                                       "the token requires a PIN: set the environment variable SLIPWAY_PKCS11_PIN",
		token + "object=first" + module + "&pin-source=" + file("wrong"):      "CKR_PIN_INCORRECT",
		token + "object=first" + module + "&pin-source=" + file("none"):       "no such file",
		token + "object=third" + source:                                       "no private key that matches",
		token + "object=twice" + source:                                       `matches 2 private keys, with the IDs ["50" "51"]`,
		token + "object=second" + source:                                      "the signature is not by the key of the cert",
		"pkcs11:object=first" + source:                                        "the URI matches the tokens",
		"pkcs11:token=none;object=first" + source:                             "no token matches",
		"pkcs11:slot-id=1;object=first" + source:                              "no token matches",
		token + "object=first?module-path=/none.so&pin-source=" + file("pin"): "/none.so",
		"object=first":                            "must start with pkcs11:",
		token:                                     `the attribute ""`,
		"pkcs11:":                                 "object or id is missing",
		token + "object":                          `the attribute "object"`,
		token + "object=a;object=b":               `the attribute "object"`,
		token + "object=%zz":                      `the attribute "object"`,
		token + "object=a;type=cert":              "must be private",
		token + "object=a;library-version=1":      `"library-version" is not supported`,
		token + "object=a;slot-id=x":              "must be a number",
		token + "object=a?pin-value=1234":         "other users can read pin-value",
		token + "object=a?pin-source=%7c/bin/pin": "must be file: and an absolute path",
	} {
		err := runSign("--pkcs11", uri, "--cert", file("first.crt"), unsigned)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "1234") {
			t.Errorf("%s: error %v, want %s", uri, err, want)
		}
	}

	t.Setenv(pinVariable, "1234")
	program := file("test.efi")
	write("test.efi", string(unsignedProgram(t)))
	args := []string{"--pkcs11", token + "object=first" + module, "--cert", file("first.crt"), program}
	if err := runSign(args...); err != nil {
		t.Error(err)
	}
	if out, err := exec.Command("sbverify", "--cert", file("first.crt"), program).CombinedOutput(); err != nil {
		t.Errorf("sbverify: %v\n%s", err, out)
	}
	t.Setenv("PATH", dir)
	if err := runSign(args...); err == nil || !strings.Contains(err.Error(), "install OpenSC (package opensc)") {
		t.Errorf("without pkcs11-tool: %v", err)
	}
}

// The token with a PIN pad is a program in place of pkcs11-tool, which also shows
// what other users can read of it.
func TestPKCS11Arguments(t *testing.T) {
	for name, test := range map[string]struct{ flags, pin, want string }{
		"PIN":      {"login required, token initialized", "1234", "--slot 0x10 --login --pin env:SLIPWAY_PKCS11_PIN"},
		"PIN pad":  {"login required, PIN pad present", "", "--slot 0x10 --login"},
		"no login": {"token initialized", "", "--slot 0x10"},
	} {
		dir := t.TempDir()
		log := filepath.Join(dir, "log")
		script := `#!/bin/sh
echo "$*" >>` + log + `
case "$*" in
*--list-token-slots*) printf 'Slot 0 (0x10): x\n  token label : boot\n  token flags : ` + test.flags + `\n' ;;
*--list-objects*) printf 'Private Key Object; RSA\n  label: db\n  ID: 0a0b\n' ;;
*) [ "$SLIPWAY_PKCS11_PIN" = "` + test.pin + `" ] || exit 1
	for output; do :; done
	echo signature >"$output" ;;
esac
`
		if err := os.WriteFile(filepath.Join(dir, "pkcs11-tool"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", dir)
		t.Setenv(pinVariable, test.pin)
		key, err := parsePKCS11("pkcs11:slot-id=16;object=db")
		if err != nil {
			t.Fatal(err)
		}
		if signature, err := key.sign(t.Context(), []byte("message")); err != nil || string(signature) != "signature\n" {
			t.Errorf("%s: signature %q, %v", name, signature, err)
		}
		text, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		want := "--list-token-slots\n" + test.want + " --list-objects --type privkey\n" + test.want + " --sign --mechanism SHA256-RSA-PKCS --id 0a0b --input-file "
		if !strings.HasPrefix(string(text), want) || strings.Contains(string(text), "1234") {
			t.Errorf("%s: arguments\n%s", name, text)
		}
	}
}
