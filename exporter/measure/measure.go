// Package measure predicts what firmware, boot loader and kernel measure into the
// registers (PCRs) of a TPM when a machine boots, so that a key can be bound to a
// machine before it runs.
//
// The predictions are for a disk that firmware boots by its default path, as EC2
// and OVMF do. Formats: TCG PC Client Platform Firmware Profile 1.06, section
// 3.3.4; systemd-stub(7), "TPM PCR Notes"; Linux,
// drivers/firmware/efi/libstub/efi-stub-helper.c.
package measure

import (
	"crypto"
	_ "crypto/sha256" // a bank of the TPM
	_ "crypto/sha512" // a bank of the TPM
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"slices"
	"text/tabwriter"
	"unicode/utf16"

	"github.com/slipway-build/slipway/exporter/efivars"
	"github.com/slipway-build/slipway/exporter/gpt"
	"github.com/slipway-build/slipway/exporter/uki"
)

// banks are the banks of PCRs with their names in event logs.
var banks = []struct {
	name string
	hash crypto.Hash
}{{"sha256", crypto.SHA256}, {"sha384", crypto.SHA384}}

// PCRs are the registers that are predicted: the boot manager, Secure Boot, what
// the kernel's EFI stub loads, the unified kernel image, and its overrides.
var PCRs = []int{4, 7, 9, 11, 12}

// Types of events (TCG PC Client Platform Firmware Profile, section 10.4.1).
const (
	typeAction       = "EV_EFI_ACTION"
	typeSeparator    = "EV_SEPARATOR"
	typeApplication  = "EV_EFI_BOOT_SERVICES_APPLICATION"
	typeDriverConfig = "EV_EFI_VARIABLE_DRIVER_CONFIG"
	typeAuthority    = "EV_EFI_VARIABLE_AUTHORITY"
	typeIPL          = "EV_IPL"
	typeTag          = "EV_EVENT_TAG"
)

// An Event is a measurement into a register.
type Event struct {
	PCR         int               `json:"pcr"`
	Type        string            `json:"type"` // as tpm2_eventlog prints it
	Description string            `json:"description"`
	Digests     map[string]string `json:"digests"` // in hexadecimal, by bank
}

// Measurements are the values of PCRs and the events that result in them.
type Measurements struct {
	SecureBoot bool                         `json:"secureBoot"`
	PCRs       map[string]map[string]string `json:"pcrs"` // by bank and number, in hexadecimal
	Events     []Event                      `json:"events"`
}

// Keys are what firmware has stored for Secure Boot: the contents of its
// variables. Firmware without keys does not verify signatures.
type Keys struct {
	PK, KEK, DB []byte
	Signer      []byte // the entry of DB that verifies the machine: its owner and certificate
}

// KeysOf returns the contents of variables. The signer is the only certificate in
// db.
func KeysOf(variables []efivars.Variable) *Keys {
	var k Keys
	for _, v := range variables {
		switch v.Name {
		case "PK":
			k.PK = v.Data
		case "KEK":
			k.KEK = v.Data
		case "db":
			k.DB = v.Data
			k.Signer = efivars.FirstSignature(v.Data)
		}
	}
	return &k
}

// log is an event log in progress.
type log struct{ events []Event }

// add adds an event about what write writes to a hash.
func (l *log) add(pcr int, kind, description string, write func(io.Writer) error) error {
	hashes := make([]hash.Hash, len(banks))
	writers := make([]io.Writer, len(banks))
	for i, b := range banks {
		hashes[i] = b.hash.New()
		writers[i] = hashes[i]
	}
	if err := write(io.MultiWriter(writers...)); err != nil {
		return fmt.Errorf("%s: %w", description, err)
	}
	l.addHashes(pcr, kind, description, hashes)
	return nil
}

func (l *log) addHashes(pcr int, kind, description string, hashes []hash.Hash) {
	e := Event{PCR: pcr, Type: kind, Description: description, Digests: map[string]string{}}
	for i, b := range banks {
		e.Digests[b.name] = hex.EncodeToString(hashes[i].Sum(nil))
	}
	l.events = append(l.events, e)
}

// addBytes adds an event about bytes.
func (l *log) addBytes(pcr int, kind, description string, data ...[]byte) {
	l.add(pcr, kind, description, func(w io.Writer) error { // it never fails
		for _, b := range data {
			w.Write(b)
		}
		return nil
	})
}

// addProgram adds the event with which firmware starts a program.
func (l *log) addProgram(description string, r io.ReaderAt, size int64) error {
	hashes := make([]hash.Hash, len(banks))
	for i, b := range banks {
		hashes[i] = b.hash.New()
	}
	if err := uki.Hash(r, size, hashes...); err != nil {
		return fmt.Errorf("%s: %w", description, err)
	}
	l.addHashes(4, typeApplication, description, hashes)
	return nil
}

// addVariable adds an event about a variable (TCG PC Client Platform Firmware
// Profile, UEFI_VARIABLE_DATA).
func (l *log) addVariable(kind, name string, vendor gpt.GUID, data []byte) {
	le := binary.LittleEndian
	units := utf16.Encode([]rune(name))
	b := le.AppendUint64(slices.Clone(vendor[:]), uint64(len(units)))
	b = le.AppendUint64(b, uint64(len(data)))
	for _, u := range units {
		b = le.AppendUint16(b, u)
	}
	l.addBytes(7, kind, name, b, data)
}

// secureBoot adds what firmware measures of Secure Boot before it starts a program.
// It measures empty variables too.
func (l *log) secureBoot(keys *Keys) {
	on := []byte{0}
	if keys == nil {
		keys = &Keys{}
	} else {
		on[0] = 1
	}
	l.addVariable(typeDriverConfig, "SecureBoot", efivars.Global, on)
	l.addVariable(typeDriverConfig, "PK", efivars.Global, keys.PK)
	l.addVariable(typeDriverConfig, "KEK", efivars.Global, keys.KEK)
	l.addVariable(typeDriverConfig, "db", efivars.ImageSecurity, keys.DB)
	l.addVariable(typeDriverConfig, "dbx", efivars.ImageSecurity, nil)
	l.addBytes(7, typeSeparator, "separator", make([]byte, 4))
}

// bootOption adds what firmware measures before the program of a boot option.
func (l *log) bootOption() {
	const action = "Calling EFI Application from Boot Option"
	l.addBytes(4, typeAction, action, []byte(action))
	l.addBytes(4, typeSeparator, "separator", make([]byte, 4))
}

// measurements computes the values of the registers, which are zeros at first.
func (l *log) measurements(secureBoot bool) (*Measurements, error) {
	m := &Measurements{SecureBoot: secureBoot, Events: l.events, PCRs: map[string]map[string]string{}}
	for _, b := range banks {
		m.PCRs[b.name] = map[string]string{}
		for _, pcr := range PCRs {
			value := make([]byte, b.hash.Size())
			for _, e := range l.events {
				if e.PCR != pcr {
					continue
				}
				digest, err := hex.DecodeString(e.Digests[b.name])
				if err != nil {
					return nil, err
				}
				h := b.hash.New()
				h.Write(value)
				h.Write(digest)
				value = h.Sum(nil)
			}
			m.PCRs[b.name][fmt.Sprint(pcr)] = hex.EncodeToString(value)
		}
	}
	return m, nil
}

// WriteText writes the SHA-256 values of the registers and the events as tables.
func (m *Measurements) WriteText(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "PCR\tSHA-256")
	for _, pcr := range PCRs {
		fmt.Fprintf(table, "%d\t%s\n", pcr, m.PCRs["sha256"][fmt.Sprint(pcr)])
	}
	fmt.Fprintln(table, "\nPCR\tEVENT\tWHAT\tSHA-256")
	for _, e := range m.Events {
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\n", e.PCR, e.Type, e.Description, e.Digests["sha256"])
	}
	return table.Flush()
}

// WriteJSON writes the measurements as indented JSON.
func (m *Measurements) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(m)
}
