package luks

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/need"
)

// format makes a LUKS disk with cryptsetup and returns its header.
func format(t testing.TB, args ...string) []byte {
	t.Helper()
	need.Program(t, "cryptsetup", "cryptsetup-bin")
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, 32<<20); err != nil {
		t.Fatal(err)
	}
	key := make([]byte, 32)
	rand.Read(key)
	cmd := exec.Command("cryptsetup", append(append([]string{"luksFormat", "--batch-mode", "--disable-keyring", "--key-file", "-"}, args...), disk)...)
	cmd.Stdin = bytes.NewReader(key)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	return data[:DataOffset+1<<20]
}

// fast are arguments for a fast key derivation.
var fast = []string{"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"}

// TestRead reads what cryptsetup writes.
func TestRead(t *testing.T) {
	for name, test := range map[string]struct {
		args    []string
		profile string // error of CheckProfile
	}{
		"this package": {FormatArgs(), ""},
		"LUKS2":        {append([]string{"--type", "luks2"}, fast...), "of the LUKS header are not those"},
		"LUKS1":        {append([]string{"--type", "luks1"}, fast...), "LUKS1"},
	} {
		t.Run(name, func(t *testing.T) {
			header := format(t, test.args...)
			h, err := Read(bytes.NewReader(header))
			if err != nil {
				t.Fatal(err)
			}
			if err := h.CheckCiphers(); err != nil {
				t.Error(err)
			}
			if err := h.CheckProfile(); (err == nil) != (test.profile == "") || err != nil && !strings.Contains(err.Error(), test.profile) {
				t.Errorf("profile: %v, want %q", err, test.profile)
			}
			if len(h.Copy) > len(header) || !bytes.Equal(h.Copy, header[:len(h.Copy)]) {
				t.Error("the copy differs")
			}
			copied := filepath.Join(t.TempDir(), "header")
			if err := os.WriteFile(copied, h.Copy, 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("cryptsetup", "luksDump", copied).CombinedOutput(); err != nil {
				t.Errorf("cryptsetup does not accept the copy: %v: %s", err, out)
			}
		})
	}
}

// edit changes the JSON area of both copies of a header and writes their checksums.
func edit(t *testing.T, header []byte, change func(string) string) []byte {
	t.Helper()
	header = bytes.Clone(header)
	size := int(binary.BigEndian.Uint64(header[sizeAt:]))
	for at := 0; at <= size; at += size {
		part := header[at : at+size]
		before, _, _ := bytes.Cut(part[binarySize:], []byte{0})
		after := change(string(before))
		if after == string(before) {
			t.Error("nothing changes")
		}
		clear(part[binarySize:])
		copy(part[binarySize:], after)
		sign(part)
	}
	return header
}

// sign writes the checksum of a copy of a header.
func sign(part []byte) {
	clear(part[checksumAt:][:checksumSize])
	sum := sha256.Sum256(part)
	copy(part[checksumAt:], sum[:])
}

// TestTampered checks that headers which this package did not write are refused.
func TestTampered(t *testing.T) {
	header := format(t, FormatArgs()...)
	replace := func(old, new string) func(string) string {
		return func(s string) string { return strings.Replace(s, old, new, 1) }
	}
	const segmentCipher = `"iv_tweak":"0","encryption":"aes-xts-plain64"`
	const slotCipher = `"size":"258048","encryption":"aes-xts-plain64"`
	for name, test := range map[string]struct {
		change func(string) string
		want   string
	}{
		"null cipher of the data":     {replace(segmentCipher, `"iv_tweak":"0","encryption":"cipher_null-ecb"`), `the cipher "cipher_null-ecb"`},
		"null cipher of the key slot": {replace(slotCipher, `"size":"258048","encryption":"cipher_null-ecb"`), `the cipher "cipher_null-ecb"`},
		"no cipher":                   {replace(segmentCipher, `"iv_tweak":"0","encryption":""`), `the cipher ""`},
		"weaker cipher":               {replace(segmentCipher, `"iv_tweak":"0","encryption":"aes-ecb"`), "segments"},
		"cipher twice":                {replace(segmentCipher, segmentCipher+`,"encryption":"cipher_null-ecb"`), "twice"},
		"cipher in capitals":          {replace(segmentCipher, segmentCipher+`,"Encryption":"cipher_null-ecb"`), "segments"},
		"unencrypted segment":         {replace(`"type":"crypt"`, `"type":"linear"`), "its type is"},
		"second segment":              {replace(`"segments":{`, `"segments":{"1":{"type":"crypt","offset":"20971520","encryption":"aes-ecb"},`), "segments"},
		"other offset":                {replace(`"offset":"16777216"`, `"offset":"16781312"`), "segments"},
		"data in the header":          {replace(`"offset":"16777216"`, `"offset":"4096"`), "starts at byte"},
		"integrity":                   {replace(segmentCipher, segmentCipher+`,"integrity":{"type":"none"}`), "segments"},
		"second key slot":             {replace(`"keyslots":{`, `"keyslots":{"1":{"area":{"encryption":"aes-xts-plain64"}},`), "key slots"},
		"fewer stripes":               {replace(`"stripes":4000`, `"stripes":1`), "key slots"},
		"key derivation":              {replace(`"iterations":1000`, `"iterations":1`), "key slots"},
		"token":                       {replace(`"tokens":{`, `"tokens":{"0":{"type":"x","keyslots":[]}`), "tokens"},
		"flags":                       {replace(`"config":{`, `"config":{"flags":["allow-discards"],`), "configuration"},
		"requirements":                {replace(`"config":{`, `"config":{"requirements":{"mandatory":["online-reencrypt"]},`), "configuration"},
		"digest without a segment":    {replace(`"segments":["0"]`, `"segments":[]`), "digests"},
		"unknown member":              {replace(`{"keyslots"`, `{"x":{},"keyslots"`), "unknown members"},
		"not JSON":                    {func(s string) string { return s + "}" }, "data after"},
	} {
		t.Run(name, func(t *testing.T) {
			changed := edit(t, header, test.change)
			h, err := Read(bytes.NewReader(changed))
			if err == nil {
				err = errors.Join(h.CheckCiphers(), h.CheckProfile())
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %s", err, test.want)
			}
		})
	}
	h, err := Read(bytes.NewReader(edit(t, header, func(s string) string { return strings.ReplaceAll(s, "{", "{ ") })))
	if err != nil || h.CheckProfile() != nil {
		t.Errorf("other spaces: %v", err)
	}

	size := int(binary.BigEndian.Uint64(header[sizeAt:]))
	for name, test := range map[string]struct {
		change func([]byte)
		want   string
	}{
		"checksum":           {func(b []byte) { b[binarySize]++ }, "primary header: it does not match"},
		"secondary checksum": {func(b []byte) { b[size+binarySize]++ }, "secondary header: it does not match"},
		"newer secondary":    {func(b []byte) { b[size+23]++; sign(b[size : 2*size]) }, "two copies differ"},
		"other secondary":    {func(b []byte) { b[2*size-1]++; sign(b[size : 2*size]) }, "two copies differ"},
		"hidden data":        {func(b []byte) { b[size-1]++; b[2*size-1]++; sign(b[:size]); sign(b[size : 2*size]) }, "data after the JSON area"},
		"place":              {func(b []byte) { b[offsetAt+7]++; sign(b[:size]) }, "another place"},
		"algorithm":          {func(b []byte) { b[algorithmAt+3] = '5'; sign(b[:size]) }, "not SHA-256"},
		"no secondary":       {func(b []byte) { clear(b[size : 2*size]) }, "secondary header: it has another magic"},
		"no primary":         {func(b []byte) { clear(b[:size]) }, "another magic"},
		"version":            {func(b []byte) { b[7] = 3 }, "version 3"},
		"size":               {func(b []byte) { b[14]++ }, "it has"},
		"LUKS1 without cipher": {func(b []byte) {
			b[7] = 1
			clear(b[cipherNameAt:][:2*cipherTextSize])
			copy(b[cipherNameAt:], "cipher_null")
			copy(b[cipherModeAt:], "ecb")
			binary.BigEndian.PutUint32(b[payloadAt:], 4096)
		}, `the cipher "cipher_null-ecb"`},
	} {
		changed := bytes.Clone(header)
		test.change(changed)
		h, err := Read(bytes.NewReader(changed))
		if err == nil {
			err = h.CheckCiphers()
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %s", name, err, test.want)
		}
	}
}

// FuzzRead reads damaged headers.
func FuzzRead(f *testing.F) {
	part := make([]byte, minHeader)
	copy(part, magic)
	part[versionAt+1] = 2
	binary.BigEndian.PutUint64(part[sizeAt:], minHeader)
	copy(part[algorithmAt:], "sha256")
	f.Add(part, `{"keyslots":{},"tokens":{},"segments":{"0":{"type":"crypt","offset":"32768","encryption":"aes-xts-plain64"}},"digests":{},"config":{"keyslots_size":"0"}}`)
	first := bytes.Clone(part)
	first[versionAt+1] = 1
	f.Add(first, "")
	f.Fuzz(func(t *testing.T, first []byte, area string) {
		if len(first) != minHeader || len(area) > minHeader-binarySize {
			return
		}
		// The checksums are right, so that the parser gets to the JSON.
		first = bytes.Clone(first)
		clear(first[binarySize:])
		copy(first[binarySize:], area)
		second := bytes.Clone(first)
		copy(second, secondaryMagic)
		binary.BigEndian.PutUint64(second[offsetAt:], minHeader)
		sign(first)
		sign(second)
		disk := append(append(first, second...), make([]byte, 64<<10)...)
		h, err := Read(bytes.NewReader(disk))
		if err != nil {
			return
		}
		if !bytes.HasPrefix(disk, h.Copy) || len(h.Copy) < binarySize {
			t.Errorf("the copy has %d bytes", len(h.Copy))
		}
		if h.CheckProfile() == nil && h.CheckCiphers() != nil {
			t.Error("the profile has a cipher that does not protect")
		}
	})
}
