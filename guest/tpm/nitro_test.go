package tpm

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/slipway-build/slipway/internal/testutil/tpmtest"
)

// nitro adds the vendor command of NitroTPM to an emulator, as AWS's program uses it.
type nitro struct {
	transport.TPMCloser
	t        *testing.T
	response []byte
	request  []byte
}

// Send implements transport.TPM.
func (n *nitro) Send(command []byte) ([]byte, error) {
	if binary.BigEndian.Uint32(command[6:]) != commandNSM {
		return n.TPMCloser.Send(command)
	}
	be := binary.BigEndian
	index, area := be.Uint32(command[10:]), command[22:]
	if be.Uint16(command) != 0x8002 || int(be.Uint32(command[2:])) != len(command) || be.Uint32(command[14:]) != index || int(be.Uint32(command[18:])) != len(area) ||
		be.Uint32(area) != 0x40000009 || int(be.Uint16(area[7:])) != len(area)-9 {
		n.t.Errorf("the command is % x", command)
	}
	password := area[9:]
	handle := tpm2.TPMHandle(index)
	public, err := tpm2.NVReadPublic{NVIndex: handle}.Execute(n.TPMCloser)
	if err != nil {
		return nil, err
	}
	inner := New(tpmtest.Shared(n.TPMCloser))
	if n.request, err = inner.readIndex(handle, handle, public.NVName, public.NVName, password, testSize); err != nil {
		return nil, err
	}
	for at := 0; at < len(n.response); at += transferSize {
		if _, err := (tpm2.NVWrite{
			AuthHandle: tpm2.AuthHandle{Handle: handle, Name: public.NVName, Auth: tpm2.PasswordAuth(password)}, NVIndex: tpm2.NamedHandle{Handle: handle, Name: public.NVName},
			Data: tpm2.TPM2BMaxNVBuffer{Buffer: n.response[at:min(at+transferSize, len(n.response))]}, Offset: uint16(at),
		}).Execute(n.TPMCloser); err != nil {
			return nil, err
		}
	}
	return []byte{0x80, 0x02, 0, 0, 0, 10, 0, 0, 0, 0}, nil
}

// testSize is the size of the message in tests: an emulator has less memory than a
// NitroTPM.
const testSize = 2048

// TestNitroDocument checks the protocol of AWS's program.
func TestNitroDocument(t *testing.T) {
	n := &nitro{TPMCloser: tpmtest.New(t).Boot("good"), t: t}
	tpm := New(n)
	if tpm.IsNitro() {
		t.Error("an emulator is a NitroTPM")
	}
	document := bytes.Repeat([]byte("document"), 100)
	n.response = append(unhex("a16b4174746573746174696f6ea168646f63756d656e74590320"), document...)
	for range 2 {
		got, err := tpm.nitroDocument(Request{Nonce: []byte("nonce"), PublicKey: bytes.Repeat([]byte{1}, 300)}, testSize)
		if err != nil || !bytes.Equal(got, document) {
			t.Fatalf("%q, %v", got, err)
		}
	}
	want := append(unhex("a16b4174746573746174696f6ea369757365725f64617461f6656e6f6e6365456e6f6e63656a7075626c69635f6b657959012c"), bytes.Repeat([]byte{1}, 300)...)
	if !bytes.HasPrefix(n.request, want) {
		t.Errorf("the request is % x", n.request)
	}
	n.response = unhex("a1654572726f726f496e76616c6964417267756d656e74")
	if _, err := tpm.nitroDocument(Request{}, testSize); err == nil || !strings.Contains(err.Error(), `reports "InvalidArgument"`) {
		t.Errorf("an error: %v", err)
	}
	if _, err := tpm.nitroDocument(Request{Nonce: make([]byte, 1025)}, testSize); err == nil {
		t.Error("a large nonce is accepted")
	}
	if _, err := (tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(messageIndex)}).Execute(n.TPMCloser); err == nil {
		t.Error("the message remains in the TPM")
	}
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

func FuzzDecodeDocument(f *testing.F) {
	f.Add(unhex("a16b4174746573746174696f6ea168646f63756d656e7441ff"))
	f.Add(unhex("a1654572726f726f496e76616c6964417267756d656e74"))
	f.Add(unhex("a16b4174746573746174696f6ea168646f63756d656e745a7fffffffff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if document, err := decodeDocument(data); err == nil && len(document) > len(data) {
			t.Errorf("%d bytes", len(document))
		}
	})
}
