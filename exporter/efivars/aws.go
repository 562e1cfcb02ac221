package efivars

import (
	"bytes"
	"compress/zlib"
	_ "embed"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"strings"

	"github.com/slipway-build/slipway/exporter/gpt"
)

// awsDictionary is the dictionary of zlib for version 0 of UefiData, from
// python-uefivars (Copyright Amazon.com, Inc. or its affiliates, license MIT).
//
//go:embed aws_v0.dict
var awsDictionary []byte

const (
	awsMagic     = "AMZNUEFI"
	awsHeader    = len(awsMagic) + 4 + 4 // with checksum and version
	awsDigest    = 32                    // of the key that signed a write; zeros for an unknown one
	awsMaxSize   = 1 << 20               // unpacked
	awsMaxNumber = 1000
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// EncodeAWS returns variables as the parameter UefiData of EC2's RegisterImage, in
// Base64. EC2 accepts up to 64 kB.
func EncodeAWS(variables ...Variable) (string, error) {
	le := binary.LittleEndian
	field := func(b, data []byte) []byte { return append(le.AppendUint64(b, uint64(len(data))), data...) }
	b := le.AppendUint64(nil, uint64(len(variables)))
	for _, v := range variables {
		b = field(b, []byte(v.Name))
		b = field(b, v.Data)
		b = append(b, v.Vendor[:]...)
		b = le.AppendUint32(b, v.Attributes)
		if v.Attributes&TimeBasedKey != 0 {
			b = append(b, encodeTime(v.Time)...)
			b = field(b, make([]byte, awsDigest))
		}
	}
	var packed bytes.Buffer
	z, err := zlib.NewWriterLevelDict(&packed, zlib.BestCompression, awsDictionary)
	if err != nil {
		return "", err
	}
	if _, err := z.Write(b); err != nil {
		return "", err
	}
	if err := z.Close(); err != nil {
		return "", err
	}
	rest := append(le.AppendUint32(nil, 0), packed.Bytes()...) // version 0
	out := le.AppendUint32([]byte(awsMagic), crc32.Checksum(rest, castagnoli))
	return base64.StdEncoding.EncodeToString(append(out, rest...)), nil
}

// DecodeAWS returns the variables in EC2's UefiData.
func DecodeAWS(text string) ([]Variable, error) {
	data, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil {
		return nil, fmt.Errorf("%w: UefiData: %w", ErrFormat, err)
	}
	le := binary.LittleEndian
	if len(data) < awsHeader || string(data[:len(awsMagic)]) != awsMagic {
		return nil, fmt.Errorf("%w: UefiData does not start with %s", ErrFormat, awsMagic)
	}
	rest := data[len(awsMagic)+4:]
	if crc32.Checksum(rest, castagnoli) != le.Uint32(data[len(awsMagic):]) {
		return nil, fmt.Errorf("%w: the checksum of UefiData does not match", ErrFormat)
	}
	if version := le.Uint32(rest); version != 0 {
		return nil, fmt.Errorf("%w: UefiData has the version %d", ErrFormat, version)
	}
	z, err := zlib.NewReaderDict(bytes.NewReader(rest[4:]), awsDictionary)
	if err != nil {
		return nil, fmt.Errorf("%w: UefiData: %w", ErrFormat, err)
	}
	raw, err := io.ReadAll(io.LimitReader(z, awsMaxSize))
	if err != nil {
		return nil, fmt.Errorf("%w: UefiData: %w", ErrFormat, err)
	}
	return decodeAWS(raw)
}

// awsReader reads fields until one does not fit.
type awsReader struct {
	rest   []byte
	failed bool
}

func (r *awsReader) take(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.failed = true
		return make([]byte, min(n, 64))
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *awsReader) field() []byte {
	return bytes.Clone(r.take(binary.LittleEndian.Uint64(r.take(8))))
}

func decodeAWS(raw []byte) ([]Variable, error) {
	r := awsReader{rest: raw}
	number := binary.LittleEndian.Uint64(r.take(8))
	if number > awsMaxNumber {
		return nil, fmt.Errorf("%w: UefiData has %d variables: at most %d", ErrFormat, number, awsMaxNumber)
	}
	var variables []Variable
	for range number {
		v := Variable{Name: string(r.field()), Data: r.field(), Vendor: gpt.GUID(r.take(16)), Attributes: binary.LittleEndian.Uint32(r.take(4))}
		if v.Attributes&TimeBasedKey != 0 {
			v.Time = decodeTime(r.take(timeSize))
			r.field()
		}
		if r.failed {
			return nil, fmt.Errorf("%w: UefiData is truncated", ErrFormat)
		}
		variables = append(variables, v)
	}
	return variables, nil
}
