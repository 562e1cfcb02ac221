// Package pemfile parses the keys and certificates with which people sign: in PEM
// (RFC 7468), as openssl writes them. Errors contain nothing of a private key.
package pemfile

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// PrivateKey parses a private key: PKCS #8, or as older commands of openssl
// write it, PKCS #1 (RSA) or SEC 1 (elliptic curve).
func PrivateKey(text []byte) (crypto.Signer, error) {
	block, rest := pem.Decode(text)
	if block != nil && block.Type == "EC PARAMETERS" { // openssl ecparam -genkey writes it before the key
		block, _ = pem.Decode(rest)
	}
	if block == nil {
		return nil, errors.New("the file is not PEM")
	}
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("it is encrypted: decrypt it first, for example with openssl pkey")
	default:
		return nil, fmt.Errorf("the file has a %.40q instead of a private key", block.Type)
	}
	if err != nil {
		return nil, errors.New("the private key is damaged") // err has some of its bytes
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("this kind of private key cannot sign")
	}
	return signer, nil
}

// PublicKey parses a public key in PKIX.
func PublicKey(text []byte) (crypto.PublicKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, errors.New("there is no public key in PEM")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	return key, nil
}

// Certificate parses an X.509 certificate in PEM or DER.
func Certificate(data []byte) (*x509.Certificate, error) {
	if block, _ := pem.Decode(data); block != nil {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("the file has a %.40q instead of a certificate", block.Type)
		}
		data = block.Bytes
	}
	return x509.ParseCertificate(data)
}
