package luks

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
)

// Parameters of the disks that this package's users make, in bytes.
const (
	// DataOffset is where the encrypted data starts.
	DataOffset = 16 << 20
	// MetadataSize and KeyslotsSize are the sizes of one header and of the key
	// slots after both of them.
	MetadataSize = 16 << 10
	KeyslotsSize = 512 << 10
)

// Cipher and KeySize, in bytes, are those of the data and of the key slot.
const (
	Cipher  = "aes-xts-plain64"
	KeySize = 64
)

// FormatArgs returns the arguments of cryptsetup luksFormat for a header that
// CheckProfile accepts. The key must be random: the key derivation is fast.
func FormatArgs() []string {
	return []string{
		"--type", "luks2", "--offset", strconv.Itoa(DataOffset / sectorSize),
		"--luks2-metadata-size", fmt.Sprint(MetadataSize), "--luks2-keyslots-size", fmt.Sprint(KeyslotsSize),
		"--cipher", Cipher, "--key-size", fmt.Sprint(8 * KeySize), "--hash", "sha256",
		"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
	}
}

// CheckProfile returns an error if a header has other parameters than FormatArgs
// says, apart from its salts and digests.
func (h *Header) CheckProfile() error {
	if h.metadata.segments == nil {
		return fmt.Errorf("the header is of LUKS1, not LUKS2: refused")
	}
	for _, c := range []struct {
		what string
		got  object
		want string
	}{
		{"key slots", h.metadata.keyslots, `{"0": {"type": "luks2", "key_size": 64, "af": {"type": "luks1", "stripes": 4000, "hash": "sha256"},
			"area": {"type": "raw", "offset": "32768", "size": "258048", "encryption": "aes-xts-plain64", "key_size": 64},
			"kdf": {"type": "pbkdf2", "hash": "sha256", "iterations": 1000, "salt": "*"}}}`},
		{"tokens", h.metadata.tokens, `{}`},
		{"segments", h.metadata.segments, `{"0": {"type": "crypt", "offset": "16777216", "size": "dynamic", "iv_tweak": "0",
			"encryption": "aes-xts-plain64", "sector_size": "#"}}`},
		{"digests", h.metadata.digests, `{"0": {"type": "pbkdf2", "keyslots": ["0"], "segments": ["0"], "hash": "sha256", "iterations": "#",
			"salt": "*", "digest": "*"}}`},
		{"configuration", h.metadata.config, `{"json_size": "12288", "keyslots_size": "524288"}`},
	} {
		got, err := json.Marshal(c.got)
		if err != nil {
			return err
		}
		if err := match(got, []byte(c.want)); err != nil {
			return fmt.Errorf("the %s of the LUKS header are not those of a disk of this package: %w: refused", c.what, err)
		}
	}
	return nil
}

// match compares a JSON value with a pattern, in which "*" is any string and "#" any
// number.
func match(got, want []byte) error {
	if pattern, err := parseObject(want); err == nil {
		value, err := parseObject(got)
		if err != nil {
			return err
		}
		for key, raw := range value {
			expected, ok := pattern[key]
			if !ok {
				return fmt.Errorf("%q is not expected", key)
			}
			if err := match(raw, expected); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
			delete(pattern, key)
		}
		for key := range pattern {
			return fmt.Errorf("%q is missing", key)
		}
		return nil
	}
	var b bytes.Buffer
	if err := json.Compact(&b, got); err != nil {
		return err
	}
	got = b.Bytes()
	var isString string
	var isNumber int64
	switch {
	case string(want) == `"*"` && json.Unmarshal(got, &isString) == nil,
		string(want) == `"#"` && json.Unmarshal(got, &isNumber) == nil,
		bytes.Equal(got, want):
		return nil
	}
	return fmt.Errorf("it is %.100q", got)
}
