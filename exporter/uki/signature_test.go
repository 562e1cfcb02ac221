package uki

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/exporter/disk/disktest"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/internal/testutil/need"
	"github.com/slipway-build/slipway/internal/testutil/signkey"
)

// newSigner returns a signer with a new key, and the file of its certificate.
func newSigner(t testing.TB, name string) (*Signer, string) {
	t.Helper()
	key, certificate := signkey.PEM(t, name)
	s, err := ParseSigner(key, certificate)
	if err != nil {
		t.Fatal(err)
	}
	return s, writeFile(t, name+".crt", certificate)
}

func writeFile(t testing.TB, name string, data []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func sign(t testing.TB, program sparse.Content, s *Signer) sparse.Content {
	t.Helper()
	signed, err := Sign(program, s)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// sbverify accepts programs that Sign signed, once and twice, and rejects them with
// another certificate or after a change. Signatures agrees.
func TestSign(t *testing.T) {
	need.Program(t, "sbverify", "sbsigntool")
	need.Program(t, "objdump", "binutils")
	const systemd = "/usr/lib/systemd/boot/efi/"
	need.File(t, systemd, "systemd-boot-efi")
	programs := map[string][]byte{}
	for _, name := range []string{"linuxx64.efi.stub", "systemd-bootx64.efi"} {
		data, err := os.ReadFile(systemd + name)
		if err != nil {
			t.Fatal(err)
		}
		programs[name] = data
	}
	programs["odd size"] = append(disktest.Program(0x8664, 0x400), 1, 2, 3)
	image, err := New(programs["linuxx64.efi.stub"], sections())
	if err != nil {
		t.Fatal(err)
	}
	programs["UKI"] = []byte(content(t, image))

	first, firstFile := newSigner(t, "first")
	second, secondFile := newSigner(t, "second")
	_, otherFile := newSigner(t, "other")
	for name, data := range programs {
		t.Run(name, func(t *testing.T) {
			once := sign(t, sparse.Bytes(data), first)
			twice := sign(t, once, second)
			for _, test := range []struct {
				program sparse.Content
				accept  []string
				reject  []string
				signers string
			}{
				{once, []string{firstFile}, []string{secondFile, otherFile}, "first"},
				{twice, []string{firstFile, secondFile}, []string{otherFile}, "first second"},
			} {
				file := writeFile(t, "signed.efi", []byte(content(t, test.program)))
				for _, certificate := range test.accept {
					if out, err := exec.Command("sbverify", "--cert", certificate, file).CombinedOutput(); err != nil {
						t.Errorf("sbverify --cert %s: %v\n%s", filepath.Base(certificate), err, out)
					}
				}
				for _, certificate := range test.reject {
					if out, err := exec.Command("sbverify", "--cert", certificate, file).CombinedOutput(); err == nil {
						t.Errorf("sbverify --cert %s succeeded:\n%s", filepath.Base(certificate), out)
					}
				}
				if out, err := exec.Command("objdump", "-p", file).CombinedOutput(); err != nil || !strings.Contains(string(out), "Security Directory") {
					t.Errorf("objdump: %v\n%s", err, out)
				}
				signatures, err := Signatures(test.program, test.program.Size)
				var signers []string
				for _, s := range signatures {
					signers = append(signers, s.Certificate.Subject.CommonName)
				}
				if got := strings.Join(signers, " "); err != nil || got != test.signers {
					t.Errorf("signed by %q, want %q, %v", got, test.signers, err)
				}
			}
			if again := sign(t, sparse.Bytes(data), first); content(t, again) != content(t, once) {
				t.Error("the same key made another signature")
			}
			changed := []byte(content(t, once))
			changed[len(data)/2] ^= 1
			if _, err := Signatures(bytes.NewReader(changed), int64(len(changed))); !errors.Is(err, ErrSignature) {
				t.Errorf("after a change: error %v, want ErrSignature", err)
			}
			if out, err := exec.Command("sbverify", "--cert", firstFile, writeFile(t, "changed.efi", changed)).CombinedOutput(); err == nil {
				t.Errorf("sbverify accepts a changed program:\n%s", out)
			}
			if sum, want := wordSum([]byte(content(t, twice))), readChecksum(t, twice); sum != want {
				t.Errorf("checksum %#x, want %#x", want, sum)
			}
		})
	}
}

func readChecksum(t *testing.T, program sparse.Content) uint32 {
	t.Helper()
	h, err := readHeaders(program, program.Size)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4)
	if _, err := program.ReadAt(b, int64(h.pe+peOptional+optChecksum)); err != nil {
		t.Fatal(err)
	}
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

// The hash is the one that sbsign signs.
func TestHash(t *testing.T) {
	need.Program(t, "sbsign", "sbsigntool")
	key, certificate := signkey.PEM(t, "test")
	file := writeFile(t, "program.efi", disktest.Program(0x8664, 0x400))
	out := filepath.Join(t.TempDir(), "signed.efi")
	if message, err := exec.Command("sbsign", "--key", writeFile(t, "key", key), "--cert", writeFile(t, "crt", certificate), "--output", out, file).CombinedOutput(); err != nil {
		t.Fatalf("sbsign: %v\n%s", err, message)
	}
	signed, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	signatures, err := Signatures(bytes.NewReader(signed), int64(len(signed)))
	if err != nil || len(signatures) != 1 {
		t.Fatalf("%d signatures, want 1: %v", len(signatures), err)
	}
	unsigned := disktest.Program(0x8664, 0x400)
	sum := sha256.New()
	if err := Hash(bytes.NewReader(unsigned), int64(len(unsigned)), sum); err != nil {
		t.Fatal(err)
	}
	if got := sum.Sum(nil); !bytes.Equal(got, signatures[0].digest) {
		t.Errorf("hash %s, sbsign signed %s", hex.EncodeToString(got), hex.EncodeToString(signatures[0].digest))
	}
}

func TestParseSignerErrors(t *testing.T) {
	key, certificate := signkey.PEM(t, "test")
	_, other := signkey.PEM(t, "other")
	for want, test := range map[string][2][]byte{
		"signing key: the certificate is for another key":   {key, other},
		"signing key: the file is not PEM":                  {[]byte("secret"), certificate},
		"signing key: the private key is damaged":           {[]byte("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"), certificate},
		`signing key: the file has a "CERTIFICATE" instead`: {certificate, certificate},
		`certificate: the file has a "PRIVATE KEY" instead`: {key, key},
		"certificate: x509: malformed certificate":          {key, []byte("text")},
		"signing key: it is encrypted: decrypt it first":    {[]byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nc2VjcmV0\n-----END ENCRYPTED PRIVATE KEY-----\n"), certificate},
	} {
		_, err := ParseSigner(test[0], test[1])
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "c2VjcmV0") {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

// Damaged signed programs cause errors.
func FuzzSignatures(f *testing.F) {
	s, _ := newSigner(f, "fuzz")
	signed := sign(f, sparse.Bytes(disktest.Program(0x8664, 0x400)), s)
	data := make([]byte, signed.Size)
	if _, err := signed.ReadAt(data, 0); err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		signatures, err := Signatures(bytes.NewReader(data), int64(len(data)))
		for _, s := range signatures {
			if err != nil || s.Certificate == nil {
				t.Errorf("signature without certificate, or error %v beside signatures", err)
			}
		}
	})
}
