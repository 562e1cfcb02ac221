// Package efivars writes and reads the variables of UEFI firmware that Secure Boot
// uses: signature databases, updates that are signed, EDK II's variable store and
// the UefiData of EC2.
//
// Formats: UEFI Specification 2.10, section 8.2 (variables) and section 32.4.1
// (signature databases); EDK II, MdeModulePkg/Include/Guid/VariableFormat.h; and
// python-uefivars of AWS Labs for UefiData. Numbers are little-endian.
package efivars

import (
	"crypto/x509"
	"encoding/binary"
	"errors"
	"time"
	"unicode/utf16"

	"github.com/slipway-build/slipway/exporter/gpt"
)

// ErrFormat is the error for data that is not in the format that a function reads,
// or is damaged.
var ErrFormat = errors.New("invalid UEFI variables")

// Attributes of variables (UEFI 2.10, section 8.2.1).
const (
	NonVolatile  = 0x1
	BootService  = 0x2
	Runtime      = 0x4
	TimeBasedKey = 0x20 // writes must be signed

	// Signed are the attributes of the variables of Secure Boot.
	Signed = NonVolatile | BootService | Runtime | TimeBasedKey
)

// Vendors of variables, which are their name spaces.
var (
	Global        = gpt.MustParse("8be4df61-93ca-11d2-aa0d-00e098032b8c") // PK, KEK
	ImageSecurity = gpt.MustParse("d719b2cb-3d3a-4596-a3bc-dad00e67656f") // db, dbx
	secureEnable  = gpt.MustParse("f0a30bc7-af08-4556-99c4-001009c93a44") // EDK II, gEfiSecureBootEnableDisableGuid
)

// A Variable is a variable of the firmware.
type Variable struct {
	Name       string
	Vendor     gpt.GUID
	Attributes uint32
	Time       time.Time // of the last signed write, in UTC and whole seconds; zero for others
	Data       []byte
}

// SecureBootEnable is the variable that turns Secure Boot on in EDK II, once there
// is a platform key.
func SecureBootEnable() Variable {
	return Variable{Name: "SecureBootEnable", Vendor: secureEnable, Attributes: NonVolatile | BootService, Data: []byte{1}}
}

// typeX509 is the type of certificates in a signature list (UEFI 2.10, section
// 32.4.1.3).
var typeX509 = gpt.MustParse("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")

const (
	listHeader  = 28 // EFI_SIGNATURE_LIST
	ownerLength = 16 // EFI_SIGNATURE_DATA before the certificate
)

// SignatureLists returns a signature database with certificates, the content of the
// variables PK, KEK and db. The owner is who added them.
func SignatureLists(owner gpt.GUID, certificates ...*x509.Certificate) []byte {
	le := binary.LittleEndian
	var b []byte
	for _, c := range certificates {
		size := uint32(ownerLength + len(c.Raw))
		b = append(b, typeX509[:]...)
		b = le.AppendUint32(b, listHeader+size)
		b = le.AppendUint32(b, 0) // no header of the signatures
		b = le.AppendUint32(b, size)
		b = append(b, owner[:]...)
		b = append(b, c.Raw...)
	}
	return b
}

// encodeName returns a name in UTF-16, without NUL.
func encodeName(name string) []byte {
	var b []byte
	for _, unit := range utf16.Encode([]rune(name)) {
		b = binary.LittleEndian.AppendUint16(b, unit)
	}
	return b
}

func decodeName(b []byte) string {
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	return string(utf16.Decode(units))
}

const timeSize = 16

// encodeTime returns a time as EFI_TIME (UEFI 2.10, section 8.3), and zeros for the
// zero time.
func encodeTime(t time.Time) []byte {
	b := make([]byte, timeSize)
	if t.IsZero() {
		return b
	}
	t = t.UTC()
	binary.LittleEndian.PutUint16(b, uint16(t.Year()))
	b[2], b[3], b[4], b[5], b[6] = byte(t.Month()), byte(t.Day()), byte(t.Hour()), byte(t.Minute()), byte(t.Second())
	return b
}

func decodeTime(b []byte) time.Time {
	year := int(binary.LittleEndian.Uint16(b))
	if year == 0 {
		return time.Time{}
	}
	return time.Date(year, time.Month(b[2]), int(b[3]), int(b[4]), int(b[5]), int(b[6]), 0, time.UTC)
}

// FirstSignature returns the first entry of a signature database, its owner and
// certificate, or nil if there is none. Firmware measures the entry that verifies
// a program.
func FirstSignature(database []byte) []byte {
	if len(database) < listHeader {
		return nil
	}
	le := binary.LittleEndian
	start := listHeader + int64(le.Uint32(database[20:]))
	end := start + int64(le.Uint32(database[24:]))
	if end > int64(len(database)) {
		return nil
	}
	return database[start:end]
}
