// Package bootkeys makes the keys of Secure Boot and reads them from a folder.
//
// There are three keys, each with a certificate that signs itself (UEFI 2.10, section
// 32.3): the platform key (PK) belongs to who owns the machine, a key exchange key
// (KEK) signs changes to the database, and the certificates in the database (db)
// are those whose programs the firmware starts.
package bootkeys

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/slipway-build/slipway/exporter/efivars"
	"github.com/slipway-build/slipway/exporter/gpt"
	"github.com/slipway-build/slipway/internal/pemfile"
)

// Names of the keys, which are also the names of the variables.
const (
	PK  = "PK"
	KEK = "KEK"
	DB  = "db"
)

// Files of a folder, beside NAME.key, NAME.crt, NAME.esl and NAME.auth for each key.
const (
	AWSFile = "uefi-data" // UefiData of EC2

	keyBits  = 2048 // EDK II verifies longer keys too, but not all firmware does
	validFor = 30   // years; firmware ignores the dates of certificates
)

// owner is the owner in the signature databases, a GUID that was made for Slipway.
var owner = gpt.MustParse("c5a1b9c8-6b0e-4c6c-9a7e-51d5f7a60b3d")

// A Key is a key with its certificate.
type Key struct {
	Private     *rsa.PrivateKey // nil for a folder without private keys
	Certificate *x509.Certificate
}

// Keys are the keys of Secure Boot.
type Keys struct{ PK, KEK, DB Key }

// New makes keys. The name is part of the subjects of their certificates. They are
// valid from now on.
func New(name string, now time.Time) (Keys, error) {
	var k Keys
	for kind, key := range map[string]*Key{"platform key": &k.PK, "key exchange key": &k.KEK, "signing key": &k.DB} {
		var err error
		if *key, err = newKey(name+" "+kind, now.UTC().Truncate(time.Second)); err != nil {
			return k, err
		}
	}
	return k, nil
}

func newKey(name string, now time.Time) (Key, error) {
	private, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return Key{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return Key{}, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: now, NotAfter: now.AddDate(validFor, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return Key{}, err
	}
	certificate, err := x509.ParseCertificate(der)
	return Key{private, certificate}, err
}

// Variables returns what firmware has to store to trust the keys, in the order in
// which it accepts them: Secure Boot starts with the platform key, the last one.
func (k Keys) Variables() []efivars.Variable {
	variable := func(name string, vendor gpt.GUID, key Key) efivars.Variable {
		return efivars.Variable{Name: name, Vendor: vendor, Attributes: efivars.Signed,
			Time: key.Certificate.NotBefore, Data: efivars.SignatureLists(owner, key.Certificate)}
	}
	return []efivars.Variable{
		variable(DB, efivars.ImageSecurity, k.DB),
		variable(KEK, efivars.Global, k.KEK),
		variable(PK, efivars.Global, k.PK),
	}
}

// Write writes the keys to a folder, which it creates. It fails if a file exists.
// Nobody but the user can read private keys.
func (k Keys) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	files, err := k.files()
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := create(filepath.Join(dir, f.name), f.data, f.mode); err != nil {
			return err
		}
	}
	return nil
}

type file struct {
	name string
	data []byte
	mode os.FileMode
}

func (k Keys) files() ([]file, error) {
	var files []file
	for name, key := range map[string]Key{PK: k.PK, KEK: k.KEK, DB: k.DB} {
		private, err := x509.MarshalPKCS8PrivateKey(key.Private)
		if err != nil {
			return nil, err
		}
		files = append(files,
			file{name + ".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600},
			file{name + ".crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: key.Certificate.Raw}), 0o644})
	}
	// The platform key signs itself and the key exchange key, which signs the
	// database.
	signers := map[string]Key{PK: k.PK, KEK: k.PK, DB: k.KEK}
	for _, v := range k.Variables() {
		update, err := efivars.Update(v, signers[v.Name].Private, signers[v.Name].Certificate)
		if err != nil {
			return nil, err
		}
		files = append(files, file{v.Name + ".esl", v.Data, 0o644}, file{v.Name + ".auth", update, 0o644})
	}
	aws, err := efivars.EncodeAWS(k.Variables()...)
	if err != nil {
		return nil, err
	}
	return append(files, file{AWSFile, []byte(aws), 0o644}), nil
}

func create(name string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// Read reads the certificates of a folder. It does not read private keys.
func Read(dir string) (Keys, error) {
	var k Keys
	for name, key := range map[string]*Key{PK: &k.PK, KEK: &k.KEK, DB: &k.DB} {
		data, err := os.ReadFile(filepath.Join(dir, name+".crt"))
		if err != nil {
			return k, fmt.Errorf("keys of Secure Boot: %w", err)
		}
		if key.Certificate, err = pemfile.Certificate(data); err != nil {
			return k, fmt.Errorf("%s.crt: %w", name, err)
		}
	}
	return k, nil
}
