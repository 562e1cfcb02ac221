package efivars

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/smallstep/pkcs7"

	"github.com/slipway-build/slipway/exporter/gpt"
)

// typePKCS7 is the type of the certificate of an update (UEFI 2.10, section 32.2.4).
var typePKCS7 = gpt.MustParse("4aafd29d-68df-49ee-8aa9-347d375665a7")

const (
	certificateHeader   = 8 + 16 // WIN_CERTIFICATE_UEFI_GUID without the data
	certificateRevision = 0x200
	certificateGUID     = 0x0ef1
)

// Update returns a signed write of a variable, with a descriptor of the type
// EFI_VARIABLE_AUTHENTICATION_2 (UEFI 2.10, section 8.2.2), as .auth files contain.
// The key is that of the certificate.
func Update(v Variable, key *rsa.PrivateKey, certificate *x509.Certificate) ([]byte, error) {
	le := binary.LittleEndian
	timestamp := encodeTime(v.Time)
	message := slices.Concat(encodeName(v.Name), v.Vendor[:], le.AppendUint32(nil, v.Attributes), timestamp, v.Data)
	s, err := pkcs7.NewSignedData(message)
	if err != nil {
		return nil, err
	}
	s.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	s.SetEncryptionAlgorithm(pkcs7.OIDEncryptionAlgorithmRSA)
	if err := s.SignWithoutAttr(certificate, key, pkcs7.SignerInfoConfig{}); err != nil {
		return nil, fmt.Errorf("sign the variable %s: %w", v.Name, err)
	}
	s.Detach()
	signature, err := s.Finish()
	if err != nil {
		return nil, fmt.Errorf("sign the variable %s: %w", v.Name, err)
	}
	b := le.AppendUint32(timestamp, uint32(certificateHeader+len(signature)))
	b = le.AppendUint16(b, certificateRevision)
	b = le.AppendUint16(b, certificateGUID)
	return slices.Concat(b, typePKCS7[:], signature, v.Data), nil
}
