package tpm

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// MaxNonce limits the nonce of a quote, in bytes.
const MaxNonce = 64

// A Quote is a TPM's signed statement about the values of registers.
type Quote struct {
	Attest    []byte   // TPMS_ATTEST, with the nonce
	Signature []byte   // TPMT_SIGNATURE
	Key       []byte   // public key of the signature in PEM
	Values    [][]byte // of the registers
}

// attestationKey is the template of a key on the curve P-256 that signs only what the
// TPM itself says.
var attestationKey = tpm2.TPMTPublic{
	Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
	ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, Restricted: true, SignEncrypt: true},
	Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		Scheme: tpm2.TPMTECCScheme{
			Scheme:  tpm2.TPMAlgECDSA,
			Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
		},
		CurveID: tpm2.TPMECCNistP256,
	}),
}

// Quote returns a quote for a nonce of at most MaxNonce bytes. Its key belongs to the
// TPM and stays the same until somebody resets the endorsement hierarchy.
func (t *TPM) Quote(nonce []byte, pcrs []int) (*Quote, error) {
	if len(nonce) > MaxNonce {
		return nil, fmt.Errorf("the nonce has %d bytes: at most %d", len(nonce), MaxNonce)
	}
	key, err := t.primary(tpm2.TPMRHEndorsement, attestationKey)
	if err != nil {
		return nil, err
	}
	defer t.flush(key.ObjectHandle)
	public, err := publicPEM(key)
	if err != nil {
		return nil, err
	}
	// A register may change between both commands. The verifier finds out, because
	// the quote has a digest of the values.
	values, err := t.PCRs(pcrs)
	if err != nil {
		return nil, err
	}
	r, err := tpm2.Quote{
		SignHandle:     tpm2.AuthHandle{Handle: key.ObjectHandle, Name: key.Name, Auth: tpm2.PasswordAuth(nil)},
		QualifyingData: tpm2.TPM2BData{Buffer: nonce},
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		PCRSelect:      selection(pcrs),
	}.Execute(t.tpm)
	if err != nil {
		return nil, fmt.Errorf("quote: %w", err)
	}
	return &Quote{r.Quoted.Bytes(), tpm2.Marshal(r.Signature), public, values}, nil
}

func publicPEM(primary *tpm2.CreatePrimaryResponse) ([]byte, error) {
	public, err := primary.OutPublic.Contents()
	if err != nil {
		return nil, err
	}
	point, err := public.Unique.ECC()
	if err != nil {
		return nil, err
	}
	const size = 32 // of a coordinate; a TPM may omit zeros at its beginning
	if len(point.X.Buffer) > size || len(point.Y.Buffer) > size {
		return nil, errors.New("the TPM returns a key on another curve than P-256")
	}
	encoded := make([]byte, 1+2*size)
	encoded[0] = 4 // uncompressed (SEC 1, section 2.3.3)
	copy(encoded[1+size-len(point.X.Buffer):], point.X.Buffer)
	copy(encoded[1+2*size-len(point.Y.Buffer):], point.Y.Buffer)
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), encoded)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// endorsementCertificates are the indexes of certificates of the manufacturer (TCG EK
// Credential Profile 2.5, section 2.2.1.4): P-256 and RSA.
var endorsementCertificates = []tpm2.TPMHandle{0x1c0000a, 0x1c00002}

// EndorsementCertificate returns the certificate of the TPM's manufacturer, in DER, or
// nil if there is none.
func (t *TPM) EndorsementCertificate() []byte {
	for _, index := range endorsementCertificates {
		public, err := tpm2.NVReadPublic{NVIndex: index}.Execute(t.tpm)
		if err != nil {
			continue
		}
		area, err := public.NVPublic.Contents()
		if err != nil {
			continue
		}
		const most = 4 << 10
		if size := int(area.DataSize); size > 0 && size <= most {
			if data, err := t.readIndex(index, tpm2.TPMRHOwner, tpm2.HandleName(tpm2.TPMRHOwner), public.NVName, nil, size); err == nil {
				return data
			}
		}
	}
	return nil
}

// transferSize is what one command transfers to and from an index, in bytes. All
// TPMs support it.
const transferSize = 512

// readIndex reads an index, authorized by a handle and its password.
func (t *TPM) readIndex(index, auth tpm2.TPMHandle, authName, name tpm2.TPM2BName, password []byte, size int) ([]byte, error) {
	var data []byte
	for len(data) < size {
		r, err := tpm2.NVRead{
			AuthHandle: tpm2.AuthHandle{Handle: auth, Name: authName, Auth: tpm2.PasswordAuth(password)},
			NVIndex:    tpm2.NamedHandle{Handle: index, Name: name},
			Size:       uint16(min(size-len(data), transferSize)), Offset: uint16(len(data)),
		}.Execute(t.tpm)
		if err != nil {
			return nil, err
		}
		if len(r.Data.Buffer) == 0 {
			return nil, errors.New("the TPM returns no data")
		}
		data = append(data, r.Data.Buffer...)
	}
	return data, nil
}
