package efivars

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/slipway-build/slipway/exporter/gpt"
)

// storeSignature is the type of a variable store whose variables have a time
// (gEfiAuthenticatedVariableGuid).
var storeSignature = gpt.MustParse("aaf32c78-947b-439a-a180-2e144ec37792")

// Offsets and sizes in bytes of EDK II's firmware volume, variable store and
// variables.
const (
	volumeSignature    = 40 // "_FVH"
	volumeHeaderLength = 48
	storeSize          = 16
	storeHeader        = 28
	variableHeader     = 60
	variableID         = 0x55aa
	variableAdded      = 0x3f
	variableAlign      = 4
)

// AddToStore returns EDK II's variable store, for example QEMU's OVMF_VARS.fd, with
// variables added. It fails if the store is of another kind, has no room for them,
// or has a variable of the same name.
func AddToStore(store []byte, variables ...Variable) ([]byte, error) {
	start, end, err := storeBounds(store)
	if err != nil {
		return nil, err
	}
	old, at, err := readVariables(store[:end], start)
	if err != nil {
		return nil, err
	}
	out := bytes.Clone(store)
	le := binary.LittleEndian
	for _, v := range variables {
		for _, o := range old {
			if o.Name == v.Name && o.Vendor == v.Vendor {
				return nil, fmt.Errorf("the variable store already has the variable %s: use an empty one", v.Name)
			}
		}
		name := append(encodeName(v.Name), 0, 0)
		b := le.AppendUint16(nil, variableID)
		b = append(b, variableAdded, 0)
		b = le.AppendUint32(b, v.Attributes)
		b = le.AppendUint64(b, 0) // monotonic count
		b = append(b, encodeTime(v.Time)...)
		b = le.AppendUint32(b, 0) // index of the public key
		b = le.AppendUint32(b, uint32(len(name)))
		b = le.AppendUint32(b, uint32(len(v.Data)))
		b = append(b, v.Vendor[:]...)
		b = append(append(b, name...), v.Data...)
		if at+len(b) > end {
			return nil, fmt.Errorf("the variable store has no room for the %d bytes of the variable %s", len(b), v.Name)
		}
		copy(out[at:], b)
		at = align(at + len(b))
	}
	return out, nil
}

// ReadStore returns the variables of EDK II's variable store that are not deleted.
func ReadStore(store []byte) ([]Variable, error) {
	start, end, err := storeBounds(store)
	if err != nil {
		return nil, err
	}
	variables, _, err := readVariables(store[:end], start)
	return variables, err
}

// storeBounds returns the offsets of the first variable and of the end of the store.
func storeBounds(b []byte) (start, end int, err error) {
	le := binary.LittleEndian
	if len(b) < volumeHeaderLength+2 || string(b[volumeSignature:volumeSignature+4]) != "_FVH" {
		return 0, 0, fmt.Errorf("%w: there is no firmware volume", ErrFormat)
	}
	header := int(le.Uint16(b[volumeHeaderLength:]))
	if header+storeHeader > len(b) || gpt.GUID(b[header:header+16]) != storeSignature {
		return 0, 0, fmt.Errorf("%w: there is no store of variables with a time", ErrFormat)
	}
	size := int64(le.Uint32(b[header+storeSize:]))
	if size < storeHeader || size > int64(len(b)-header) {
		return 0, 0, fmt.Errorf("%w: the store has %d bytes, in a file of %d", ErrFormat, size, len(b))
	}
	return header + storeHeader, header + int(size), nil
}

// readVariables returns the variables from an offset on, and the offset after the
// last.
func readVariables(b []byte, at int) ([]Variable, int, error) {
	le := binary.LittleEndian
	var variables []Variable
	for at+variableHeader <= len(b) && le.Uint16(b[at:]) == variableID {
		h := b[at:]
		name, data := int64(le.Uint32(h[36:])), int64(le.Uint32(h[40:]))
		if name < 2 || name%2 != 0 || name+data > int64(len(h)-variableHeader) {
			return nil, 0, fmt.Errorf("%w: byte %d: the variable does not fit into the store", ErrFormat, at)
		}
		content := h[variableHeader : variableHeader+name+data]
		if h[2] == variableAdded {
			variables = append(variables, Variable{
				Name: decodeName(content[:name-2]), Vendor: gpt.GUID(h[44:60]), Attributes: le.Uint32(h[4:]),
				Time: decodeTime(h[16:32]), Data: bytes.Clone(content[name:]),
			})
		}
		at = align(at + variableHeader + int(name+data))
	}
	return variables, at, nil
}

func align(n int) int { return (n + variableAlign - 1) / variableAlign * variableAlign }
