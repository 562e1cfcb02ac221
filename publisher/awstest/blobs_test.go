package awstest

import (
	"bytes"
	"crypto/sha256"
	"testing"
)

// Equal blocks are stored once, zeros not at all, and free slots are reused.
func TestBlobs(t *testing.T) {
	b := newBlobs()
	defer b.close()
	block := func(c byte) (digest, []byte) {
		data := bytes.Repeat([]byte{c}, BlockSize)
		return sha256.Sum256(data), data
	}
	add := func(c byte) {
		sum, data := block(c)
		if err := b.add(sum, data); err != nil {
			t.Fatal(err)
		}
		part := make([]byte, 10)
		if err := b.readAt(sum, part, 100); err != nil || !bytes.Equal(part, data[:10]) {
			t.Errorf("block %d reads as %v: %v", c, part, err)
		}
	}
	for _, c := range []byte{0, 1, 1, 2, 0} {
		add(c)
	}
	if b.slots != 2 {
		t.Errorf("two different blocks take %d slots", b.slots)
	}
	one, _ := block(1)
	b.release(one)
	add(3)
	if b.slots != 3 {
		t.Errorf("a used block lost its slot: there are %d", b.slots)
	}
	b.release(one)
	add(4)
	if b.slots != 3 {
		t.Errorf("a free slot was not reused: there are %d", b.slots)
	}
	if err := b.readAt(one, make([]byte, 1), 0); err == nil {
		t.Error("an unused block is still stored")
	}
}
