package main

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
)

// CMS, RFC 5652, sections 3 and 6.1, as far as KMS uses it.
type (
	contentInfo struct {
		Type    asn1.ObjectIdentifier
		Content envelopedData `asn1:"explicit,tag:0"`
	}
	envelopedData struct {
		Version    int
		Recipients []recipient `asn1:"set"`
		Encrypted  encryptedContent
	}
	// recipient is a KeyTransRecipientInfo that names the key, not a certificate.
	recipient struct {
		Version   int
		KeyID     []byte `asn1:"tag:0"`
		Algorithm pkix.AlgorithmIdentifier
		Key       []byte
	}
	encryptedContent struct {
		Type      asn1.ObjectIdentifier
		Algorithm pkix.AlgorithmIdentifier
		Content   asn1.RawValue `asn1:"tag:0"`
	}
	// oaepParameters is RSAES-OAEP-params of RFC 4055, section 4.1.
	oaepParameters struct {
		Hash  pkix.AlgorithmIdentifier `asn1:"optional,explicit,tag:0"`
		Mask  pkix.AlgorithmIdentifier `asn1:"optional,explicit,tag:1"`
		Label asn1.RawValue            `asn1:"optional,explicit,tag:2"`
	}
)

var (
	oidData          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidEnvelopedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 3}
	oidRSAESOAEP     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 7}
	oidMGF1          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8}
	oidSHA256        = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidAES256CBC     = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}
)

// maxEnvelope limits an envelope, in bytes. KMS encrypts at most 4 KiB.
const maxEnvelope = 16 << 10

// openEnvelope decrypts EnvelopedData for one recipient with RSAES-OAEP and
// AES-256-CBC. Every hash is SHA-256.
func openEnvelope(envelope []byte, key *rsa.PrivateKey) ([]byte, error) {
	if len(envelope) > maxEnvelope {
		return nil, fmt.Errorf("%d bytes: at most %d", len(envelope), maxEnvelope)
	}
	der, rest, err := toDER(envelope, 0)
	if err != nil {
		return nil, err
	}
	var info contentInfo
	if more, err := asn1.Unmarshal(der, &info); err != nil {
		return nil, err
	} else if len(rest)+len(more) > 0 {
		return nil, errors.New("data after the end")
	}
	data := info.Content
	switch {
	case !info.Type.Equal(oidEnvelopedData):
		return nil, fmt.Errorf("the type is %v, not EnvelopedData", info.Type)
	case len(data.Recipients) != 1:
		return nil, fmt.Errorf("%d recipients, want 1", len(data.Recipients))
	case !data.Encrypted.Type.Equal(oidData):
		return nil, fmt.Errorf("the content has the type %v, not data", data.Encrypted.Type)
	}
	to := data.Recipients[0]
	if err := checkOAEP(to.Algorithm); err != nil {
		return nil, err
	}
	secret, err := rsa.DecryptOAEP(sha256.New(), nil, key, to.Key, nil)
	if err != nil {
		return nil, err
	}
	return data.Encrypted.decrypt(secret)
}

// checkOAEP checks that an algorithm is RSAES-OAEP with SHA-256 and no label.
func checkOAEP(a pkix.AlgorithmIdentifier) error {
	if !a.Algorithm.Equal(oidRSAESOAEP) {
		return fmt.Errorf("the key is encrypted with %v, not RSAES-OAEP", a.Algorithm)
	}
	var p oaepParameters
	if _, err := asn1.Unmarshal(a.Parameters.FullBytes, &p); err != nil {
		return fmt.Errorf("parameters of RSAES-OAEP: %w", err)
	}
	var hash pkix.AlgorithmIdentifier
	if _, err := asn1.Unmarshal(p.Mask.Parameters.FullBytes, &hash); err != nil {
		return fmt.Errorf("parameters of MGF1: %w", err)
	}
	if !p.Hash.Algorithm.Equal(oidSHA256) || !p.Mask.Algorithm.Equal(oidMGF1) || !hash.Algorithm.Equal(oidSHA256) || len(p.Label.FullBytes) > 0 {
		return errors.New("the parameters of RSAES-OAEP are not SHA-256")
	}
	return nil
}

// decrypt decrypts the content and removes its padding (RFC 5652, section 6.3).
func (c encryptedContent) decrypt(key []byte) ([]byte, error) {
	if !c.Algorithm.Algorithm.Equal(oidAES256CBC) || len(key) != 32 {
		return nil, fmt.Errorf("the content is encrypted with %v and a key of %d bytes, not AES-256-CBC", c.Algorithm.Algorithm, len(key))
	}
	var iv []byte
	if _, err := asn1.Unmarshal(c.Algorithm.Parameters.FullBytes, &iv); err != nil {
		return nil, fmt.Errorf("initialization vector: %w", err)
	}
	text, err := c.octets()
	if err != nil {
		return nil, err
	}
	if len(iv) != aes.BlockSize || len(text) == 0 || len(text)%aes.BlockSize != 0 {
		return nil, fmt.Errorf("%d bytes of content and an initialization vector of %d: want blocks of %d", len(text), len(iv), aes.BlockSize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(text, text)
	padding := int(text[len(text)-1])
	if padding < 1 || padding > aes.BlockSize || !bytes.HasSuffix(text, bytes.Repeat([]byte{byte(padding)}, padding)) {
		return nil, errors.New("the padding of the content is damaged")
	}
	return text[:len(text)-padding], nil
}

// octets returns a copy of the content, an OCTET STRING in one or several pieces
// (X.690, section 8.7).
func (c encryptedContent) octets() ([]byte, error) {
	if !c.Content.IsCompound {
		return bytes.Clone(c.Content.Bytes), nil
	}
	var all []byte
	for rest := c.Content.Bytes; len(rest) > 0; {
		var piece []byte
		var err error
		if rest, err = asn1.Unmarshal(rest, &piece); err != nil {
			return nil, fmt.Errorf("piece of the content: %w", err)
		}
		all = append(all, piece...)
	}
	return all, nil
}

// maxDepth limits how deep elements of BER are nested. An envelope has 9 levels.
const maxDepth = 16

var errBER = errors.New("damaged BER")

// toDER returns the first element with definite lengths, and what follows it. KMS
// encodes envelopes with indefinite lengths (X.690, section 8.1.3.6), which
// encoding/asn1 does not read.
func toDER(ber []byte, depth int) (der, rest []byte, err error) {
	const longTag, constructed, indefinite = 0x1f, 0x20, 0x80
	if len(ber) < 2 || ber[0]&longTag == longTag || depth > maxDepth {
		return nil, nil, errBER
	}
	tag, length, rest := ber[0], int(ber[1]), ber[2:]
	switch size := length &^ indefinite; {
	case length < indefinite:
	case size > 2 || len(rest) < size:
		return nil, nil, errBER
	default:
		length = 0
		for _, b := range rest[:size] {
			length = length<<8 | int(b)
		}
		rest = rest[size:]
	}
	endless := ber[1] == indefinite
	if length > len(rest) || endless && tag&constructed == 0 {
		return nil, nil, errBER
	}
	content := rest
	if !endless {
		content, rest = rest[:length], rest[length:]
	}
	if tag&constructed == 0 {
		return element(tag, content), rest, nil
	}
	var children []byte
	for endless || len(content) > 0 {
		if endless && bytes.HasPrefix(content, []byte{0, 0}) {
			rest = content[2:]
			break
		}
		var child []byte
		if child, content, err = toDER(content, depth+1); err != nil {
			return nil, nil, err
		}
		children = append(children, child...)
	}
	return element(tag, children), rest, nil
}

// element returns an element with a definite length below 1<<16.
func element(tag byte, content []byte) []byte {
	n := len(content)
	switch {
	case n < 1<<7:
		return append([]byte{tag, byte(n)}, content...)
	case n < 1<<8:
		return append([]byte{tag, 0x81, byte(n)}, content...)
	}
	return append([]byte{tag, 0x82, byte(n >> 8), byte(n)}, content...)
}
