package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// NSMDevice is the device of the Nitro Security Module in an enclave: a character
// device with the number 10 and a number that the kernel chooses.
const NSMDevice = "/dev/nsm"

// A Request is what a Nitro Security Module puts into an attestation document. Each
// part is optional and has at most 1 KiB.
type Request struct {
	Nonce, UserData []byte
	PublicKey       []byte // in DER
}

// maxPart limits each part of a request, in bytes (AWS, "Verifying the root of
// trust").
const maxPart = 1024

// CBOR, RFC 8949, sections 3 and 3.3.
const (
	cborBytes = 2 << 5
	cborText  = 3 << 5
	cborMap   = 5 << 5
	cborNull  = 7<<5 | 22
)

// encode returns the request in CBOR (https://github.com/aws/aws-nitro-enclaves-nsm-api,
// src/api).
func (r Request) encode() ([]byte, error) {
	b := appendText([]byte{cborMap | 1}, "Attestation")
	b = append(b, cborMap|3)
	for _, part := range []struct {
		key   string
		value []byte
	}{{"user_data", r.UserData}, {"nonce", r.Nonce}, {"public_key", r.PublicKey}} {
		b = appendText(b, part.key)
		switch {
		case len(part.value) > maxPart:
			return nil, fmt.Errorf("%s has %d bytes: at most %d", part.key, len(part.value), maxPart)
		case part.value == nil:
			b = append(b, cborNull)
		default:
			b = append(appendHead(b, cborBytes, len(part.value)), part.value...)
		}
	}
	return b, nil
}

func appendText(b []byte, s string) []byte { return append(appendHead(b, cborText, len(s)), s...) }

// appendHead adds a type with a number below 1<<16.
func appendHead(b []byte, kind byte, n int) []byte {
	switch {
	case n < 24:
		return append(b, kind|byte(n))
	case n < 1<<8:
		return append(b, kind|24, byte(n))
	}
	return binary.BigEndian.AppendUint16(append(b, kind|25), uint16(n))
}

// decodeDocument returns the document of a response, which other data may follow.
func decodeDocument(data []byte) ([]byte, error) {
	d := decoder{data}
	d.expectMap()
	switch kind := d.text(); kind {
	case "Attestation":
		d.expectMap()
		if key := d.text(); key != "document" {
			return nil, fmt.Errorf("the response has %.40q instead of a document", key)
		}
		if document := d.bytes(cborBytes); d.data != nil {
			return document, nil
		}
	case "Error":
		if code := d.text(); code != "" {
			return nil, fmt.Errorf("the Nitro Security Module reports %.40q", code)
		}
	}
	return nil, errors.New("the response of the Nitro Security Module is damaged")
}

// A decoder reads CBOR. Its data is nil after an error.
type decoder struct{ data []byte }

// head returns the number of an item of a type, or -1.
func (d *decoder) head(kind byte) int {
	if len(d.data) == 0 || d.data[0]&0xe0 != kind {
		d.data = nil
		return -1
	}
	n, size := int(d.data[0]&0x1f), 0
	switch n {
	case 24, 25, 26:
		size = 1 << (n - 24)
	case 27, 28, 29, 30, 31:
		d.data = nil // 64 bits, or of an indefinite length
		return -1
	}
	if len(d.data) < 1+size {
		d.data = nil
		return -1
	}
	if size > 0 {
		n = 0
		for _, b := range d.data[1 : 1+size] {
			n = n<<8 | int(b)
		}
	}
	d.data = d.data[1+size:]
	return n
}

func (d *decoder) expectMap() {
	if d.head(cborMap) != 1 {
		d.data = nil
	}
}

func (d *decoder) bytes(kind byte) []byte {
	n := d.head(kind)
	if n < 0 || n > len(d.data) {
		d.data = nil
		return nil
	}
	value := d.data[:n]
	d.data = d.data[n:]
	return value
}

func (d *decoder) text() string { return string(d.bytes(cborText)) }

// A message is struct nsm_raw of Linux, include/uapi/linux/nsm.h.
type message struct {
	request, response struct{ address, length uint64 }
}

// requestNSM is NSM_IOCTL_RAW: _IOWR(0x0a, 0, struct nsm_raw).
const requestNSM = 3<<30 | unsafe.Sizeof(message{})<<16 | 0x0a<<8

// EnclaveDocument returns an attestation document of the enclave that the program runs
// in.
func EnclaveDocument(r Request) ([]byte, error) {
	request, err := r.encode()
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(NSMDevice, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	const maxResponse = 0x3000 // NSM_RESPONSE_MAX_SIZE
	response := make([]byte, maxResponse)
	var m message
	var pinner runtime.Pinner
	defer pinner.Unpin()
	pinner.Pin(&request[0])
	pinner.Pin(&response[0])
	m.request.address, m.request.length = uint64(uintptr(unsafe.Pointer(&request[0]))), uint64(len(request))
	m.response.address, m.response.length = uint64(uintptr(unsafe.Pointer(&response[0]))), uint64(len(response))
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), requestNSM, uintptr(unsafe.Pointer(&m))); errno != 0 {
		return nil, fmt.Errorf("%s: %w", NSMDevice, errno)
	}
	return decodeDocument(response[:min(m.response.length, maxResponse)])
}
