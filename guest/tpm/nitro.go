package tpm

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// IsNitro reports whether the TPM is a NitroTPM of EC2.
func (t *TPM) IsNitro() bool {
	const amazon = 0x414d5a4e // "AMZN"
	r, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(tpm2.TPMPTManufacturer), PropertyCount: 1}.Execute(t.tpm)
	if err != nil {
		return false
	}
	properties, err := r.CapabilityData.Data.TPMProperties()
	return err == nil && len(properties.TPMProperty) == 1 && properties.TPMProperty[0].Property == tpm2.TPMPTManufacturer && properties.TPMProperty[0].Value == amazon
}

// The vendor command of NitroTPM has no specification but AWS's program
// (https://github.com/aws/NitroTPM-Tools, nitro-tpm-attest/src/raw). The request
// and the response are in an index, in the format of the Nitro Security Module.
const (
	commandNSM = 0x20000001

	// messageIndex is in the range that the owner may use.
	messageIndex = 0x1800a77

	// messageSize is that of AWS's program: a document has almost 5 KiB, and each of
	// three optional parts 1 KiB.
	messageSize = 8 << 10
)

// NitroDocument returns an attestation document that a NitroTPM has signed.
func (t *TPM) NitroDocument(r Request) ([]byte, error) { return t.nitroDocument(r, messageSize) }

func (t *TPM) nitroDocument(r Request, size int) (document []byte, err error) {
	request, err := r.encode()
	if err != nil {
		return nil, err
	}
	password := make([]byte, 32)
	rand.Read(password)
	owner := tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}
	name := func() (tpm2.TPM2BName, error) {
		public, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(messageIndex)}.Execute(t.tpm)
		if err != nil {
			return tpm2.TPM2BName{}, err
		}
		return public.NVName, nil
	}
	// A run that was killed has left the index behind.
	if old, err := name(); err == nil {
		tpm2.NVUndefineSpace{AuthHandle: owner, NVIndex: tpm2.NamedHandle{Handle: messageIndex, Name: old}}.Execute(t.tpm)
	}
	if _, err := (tpm2.NVDefineSpace{
		AuthHandle: owner, Auth: tpm2.TPM2BAuth{Buffer: password},
		PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
			NVIndex: messageIndex, NameAlg: tpm2.TPMAlgSHA256, DataSize: uint16(size),
			Attributes: tpm2.TPMANV{AuthRead: true, AuthWrite: true},
		}),
	}).Execute(t.tpm); err != nil {
		return nil, fmt.Errorf("define the message: %w", err)
	}
	index, err := name()
	if err != nil {
		return nil, err
	}
	defer func() {
		// The name changes when the index is written.
		if index, err := name(); err == nil {
			tpm2.NVUndefineSpace{AuthHandle: owner, NVIndex: tpm2.NamedHandle{Handle: messageIndex, Name: index}}.Execute(t.tpm)
		}
	}()
	for at := 0; at < len(request); at += transferSize {
		if _, err := (tpm2.NVWrite{
			AuthHandle: tpm2.AuthHandle{Handle: messageIndex, Name: index, Auth: tpm2.PasswordAuth(password)},
			NVIndex:    tpm2.NamedHandle{Handle: messageIndex, Name: index},
			Data:       tpm2.TPM2BMaxNVBuffer{Buffer: request[at:min(at+transferSize, len(request))]}, Offset: uint16(at),
		}).Execute(t.tpm); err != nil {
			return nil, fmt.Errorf("write the request: %w", err)
		}
		if index, err = name(); err != nil {
			return nil, err
		}
	}
	response, err := t.tpm.Send(vendorCommand(password))
	if err != nil {
		return nil, err
	}
	const header = 10 // tag, size and response code
	if len(response) < header {
		return nil, errors.New("the response of the vendor command is too short")
	}
	if code := binary.BigEndian.Uint32(response[6:]); code != 0 {
		return nil, fmt.Errorf("the vendor command of NitroTPM failed: %w", tpm2.TPMRC(code))
	}
	data, err := t.readIndex(messageIndex, messageIndex, index, index, password, size)
	if err != nil {
		return nil, fmt.Errorf("read the response: %w", err)
	}
	return decodeDocument(data)
}

// vendorCommand returns the command that sends the message to the Nitro Security
// Module. Its handles are the authorization and the index.
func vendorCommand(password []byte) []byte {
	be := binary.BigEndian
	auth := be.AppendUint32(nil, uint32(tpm2.TPMRSPW))
	auth = append(auth, 0, 0, 0) // no nonce, no attributes
	auth = be.AppendUint16(auth, uint16(len(password)))
	auth = append(auth, password...)
	b := be.AppendUint16(nil, uint16(tpm2.TPMSTSessions))
	b = be.AppendUint32(b, uint32(10+4+4+4+len(auth)))
	b = be.AppendUint32(b, commandNSM)
	b = be.AppendUint32(b, messageIndex)
	b = be.AppendUint32(b, messageIndex)
	b = be.AppendUint32(b, uint32(len(auth)))
	return append(b, auth...)
}
