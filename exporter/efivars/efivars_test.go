package efivars

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func variables() []Variable {
	return []Variable{
		{Name: "db", Vendor: ImageSecurity, Attributes: Signed, Time: time.Date(2026, 11, 28, 20, 41, 7, 0, time.UTC), Data: []byte("certificates")},
		{Name: "Ünï", Vendor: Global, Attributes: NonVolatile, Data: []byte{}},
		SecureBootEnable(),
	}
}

// emptyStore returns a variable store as EDK II's build makes it, with room for a
// number of bytes.
func emptyStore(room int) []byte {
	const header = 72
	b := bytes.Repeat([]byte{0xff}, header+storeHeader+room+100)
	clear(b[:header])
	copy(b[volumeSignature:], "_FVH")
	binary.LittleEndian.PutUint16(b[volumeHeaderLength:], header)
	copy(b[header:], storeSignature[:])
	binary.LittleEndian.PutUint32(b[header+storeSize:], uint32(storeHeader+room))
	return b
}

func TestStore(t *testing.T) {
	empty := emptyStore(1000)
	first, err := AddToStore(empty, variables()[0])
	if err != nil {
		t.Fatal(err)
	}
	store, err := AddToStore(first, variables()[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReadStore(store)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(variables(), got); diff != "" {
		t.Errorf("variables (-written +read):\n%s", diff)
	}
	if len(store) != len(empty) || !bytes.Equal(empty, emptyStore(1000)) {
		t.Error("the size changed, or the argument")
	}
	for want, test := range map[string]struct {
		store []byte
		add   Variable
	}{
		"already has the variable db":                      {store, variables()[0]},
		"has no room for the 1066 bytes of the variable a": {empty, Variable{Name: "a", Data: make([]byte, 1002)}},
		"there is no firmware volume":                      {make([]byte, 100), Variable{}},
		"there is no store of variables with a time":       {append(bytes.Clone(empty[:72]), make([]byte, 100)...), Variable{}},
		"the store has 1028 bytes, in a file of 200":       {empty[:200], Variable{}},
	} {
		if _, err := AddToStore(test.store, test.add); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

func TestAWS(t *testing.T) {
	text, err := EncodeAWS(variables()...)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeAWS(text + "\n")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(variables(), got); diff != "" {
		t.Errorf("variables (-written +read):\n%s", diff)
	}
	for want, text := range map[string]string{
		"illegal base64":            "%",
		"does not start with AMZ":   "QUFBQUFBQUFBQUFBQUFBQUFB",
		"checksum of UefiData does": text[:16] + "B" + text[17:],
	} {
		if _, err := DecodeAWS(text); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

// Damaged stores and UefiData cause errors.
func FuzzRead(f *testing.F) {
	store, err := AddToStore(emptyStore(1000), variables()...)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(store)
	f.Add(binary.LittleEndian.AppendUint64(nil, 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		if v, err := ReadStore(data); err == nil && len(v)*variableHeader > len(data) {
			t.Errorf("%d variables in %d bytes", len(v), len(data))
		}
		if v, err := decodeAWS(data); err == nil && len(v) > len(data) {
			t.Errorf("%d variables in %d bytes", len(v), len(data))
		}
	})
}
