package mbr

import (
	"bytes"
	"testing"
)

// FuzzRead checks that a table that can be read can be written, always with the
// same bytes.
func FuzzRead(f *testing.F) {
	b, err := table().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(make([]byte, Size-1))
	f.Fuzz(func(t *testing.T, disk []byte) {
		got, err := Read(bytes.NewReader(disk))
		if err != nil {
			return
		}
		b, err := got.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Read(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		// Encode completes addresses of cylinders.
		if second, err := again.Encode(); err != nil || !bytes.Equal(b, second) {
			t.Errorf("%x, written and read again: %x, %v", b, second, err)
		}
	})
}
