package reserve

import (
	"bytes"
	"testing"
)

func TestEncode(t *testing.T) {
	for _, data := range []string{"", "x", "\x00\x00", "#cloud-config\n"} {
		file, err := Encode([]byte(data), 512)
		if err != nil || len(file) != 512 {
			t.Fatalf("%q: %d bytes, %v", data, len(file), err)
		}
		if got, err := Decode(file); err != nil || string(got) != data {
			t.Errorf("%q: read %q, %v", data, got, err)
		}
	}
	if _, err := Encode(make([]byte, 512-HeaderSize+1), 512); err == nil {
		t.Error("too much data fits")
	}
	if file, err := Encode(bytes.Repeat([]byte("x"), 512-HeaderSize), 512); err != nil || file[511] != 'x' {
		t.Errorf("data that just fits: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	file, _ := Encode([]byte("data"), 64)
	f.Add(file)
	f.Add([]byte("slipway-reserve 1 -000000000001\n"))
	f.Add([]byte("slipway-reserve 1 0000000000099\nx"))
	f.Fuzz(func(t *testing.T, file []byte) {
		data, err := Decode(file)
		if err != nil {
			return
		}
		again, err := Encode(data, int64(len(file)))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Decode(again); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%q becomes %q, %v", data, got, err)
		}
	})
}
