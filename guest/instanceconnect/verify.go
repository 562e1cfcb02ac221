package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ocsp"
)

// maxCertificates is how many certificates the chain of the signer may have.
const maxCertificates = 8

// signer returns the public key of the signer of this region.
func (v *verifier) signer(ctx context.Context) (*rsa.PublicKey, error) {
	name, err := v.signerName(ctx)
	if err != nil {
		return nil, err
	}
	text, err := v.imds.must(ctx, "managed-ssh-keys/signer-cert")
	if err != nil {
		return nil, err
	}
	chains, err := v.verify(text, name)
	if err != nil {
		return nil, fmt.Errorf("certificate of the signer: %w", err)
	}
	staples, err := v.staples(ctx)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, chain := range chains {
		err := v.checkRevocation(chain, staples)
		if err == nil {
			public, ok := chain[0].PublicKey.(*rsa.PublicKey)
			if !ok {
				return nil, errors.New("certificate of the signer: not an RSA key")
			}
			return public, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// verify returns the chains from the certificate of the signer, which is the
// first in the text, to a trusted root.
func (v *verifier) verify(text, name string) ([][]*x509.Certificate, error) {
	var all []*x509.Certificate
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if len(all) == maxCertificates {
			return nil, fmt.Errorf("more than %d certificates", maxCertificates)
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, certificate)
	}
	if len(all) == 0 {
		return nil, errors.New("the metadata service has none")
	}
	if got := all[0].Subject.CommonName; got != name {
		return nil, fmt.Errorf("it is for %q, not for %q", got, name)
	}
	intermediates := x509.NewCertPool()
	for _, certificate := range all[1:] {
		intermediates.AddCert(certificate)
	}
	return all[0].Verify(x509.VerifyOptions{
		Roots: v.roots, Intermediates: intermediates, CurrentTime: v.now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
}

// staples returns the OCSP responses of the service by the SHA-1 fingerprint of
// their certificate, which is only a name here.
func (v *verifier) staples(ctx context.Context) (map[string][]byte, error) {
	const dir = "managed-ssh-keys/signer-ocsp/"
	list, err := v.imds.must(ctx, dir)
	if err != nil {
		return nil, err
	}
	staples := map[string][]byte{}
	for _, name := range strings.Fields(list) {
		if len(staples) == maxCertificates {
			return nil, fmt.Errorf("%s: more than %d OCSP responses", dir, maxCertificates)
		}
		if len(name) != 2*sha1.Size || strings.Trim(name, "0123456789ABCDEFabcdef") != "" {
			return nil, fmt.Errorf("%s: %q is not a fingerprint", dir, name)
		}
		text, err := v.imds.must(ctx, dir+name)
		if err != nil {
			return nil, err
		}
		response, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
		if err != nil {
			return nil, fmt.Errorf("%s%s: %w", dir, name, err)
		}
		staples[strings.ToUpper(name)] = response
	}
	return staples, nil
}

// checkRevocation returns an error unless a current response says of each
// certificate but the root that it is not revoked. The issuer of the certificate,
// or a responder that it has authorized, must have signed the response.
func (v *verifier) checkRevocation(chain []*x509.Certificate, staples map[string][]byte) error {
	for i, certificate := range chain[:len(chain)-1] {
		name := certificate.Subject.CommonName
		staple := staples[fmt.Sprintf("%X", sha1.Sum(certificate.Raw))]
		if staple == nil {
			return fmt.Errorf("certificate %q: no OCSP response", name)
		}
		response, err := ocsp.ParseResponseForCert(staple, certificate, chain[i+1])
		switch {
		case err != nil:
			return fmt.Errorf("certificate %q: OCSP response: %w", name, err)
		case response.Status != ocsp.Good:
			return fmt.Errorf("certificate %q: revoked", name)
		case v.now.Before(response.ThisUpdate.Add(-clockSkew)) || v.now.After(response.NextUpdate.Add(clockSkew)):
			return fmt.Errorf("certificate %q: the OCSP response is valid from %v to %v", name, response.ThisUpdate, response.NextUpdate)
		}
	}
	return nil
}

// clockSkew is how far clocks may differ, as for openssl ocsp.
const clockSkew = 5 * time.Minute

// A key is a valid key with what the signer says about it.
type key struct {
	line            string // of authorized_keys
	fingerprint     string
	request, caller string
}

// parseKeys returns the valid keys in a list. It consists of blocks, separated by
// empty lines: lines #NAME=VALUE, the key, and its signature in base64. An
// invalid block does not affect the others. If no key is valid, the error says
// why.
func parseKeys(list string, signer *rsa.PublicKey, instance, fingerprint string, now time.Time) ([]key, error) {
	var keys []key
	var errs []error
	for block := range strings.SplitSeq(strings.ReplaceAll(list, "\r\n", "\n"), "\n\n") {
		if strings.TrimSpace(block) == "" {
			continue
		}
		k, err := parseKey(block, signer, instance, now)
		switch {
		case err != nil:
			errs = append(errs, err)
		case fingerprint == "" || fingerprint == k.fingerprint:
			keys = append(keys, k)
		}
	}
	if len(keys) > 0 {
		return keys, nil
	}
	return nil, errors.Join(errs...)
}

func parseKey(block string, signer *rsa.PublicKey, instance string, now time.Time) (key, error) {
	var k key
	var signed bytes.Buffer
	fields := map[string]string{}
	lines := strings.Split(strings.Trim(block, "\n"), "\n")
	for len(lines) > 0 && strings.HasPrefix(lines[0], "#") {
		name, value, _ := strings.Cut(lines[0][1:], "=")
		fields[name] = value
		signed.WriteString(lines[0] + "\n")
		lines = lines[1:]
	}
	if len(lines) < 2 {
		return k, errors.New("a key without a signature")
	}
	k = key{line: lines[0], request: fields["Request"], caller: fields["Caller"]}
	signed.WriteString(k.line + "\n")
	signature, err := base64.StdEncoding.DecodeString(strings.Join(lines[1:], ""))
	if err != nil {
		return k, fmt.Errorf("signature of a key: %w", err)
	}
	digest := sha256.Sum256(signed.Bytes())
	if err := rsa.VerifyPSS(signer, crypto.SHA256, digest[:], signature, &rsa.PSSOptions{SaltLength: sha256.Size}); err != nil {
		return k, errors.New("signature of a key: invalid")
	}
	// From here on, everything comes from the signer.
	if k.fingerprint, err = fingerprintOf(k.line); err != nil {
		return k, err
	}
	expires, err := strconv.ParseInt(fields["Timestamp"], 10, 64)
	switch {
	case err != nil:
		return k, fmt.Errorf("key %s: no time of expiry", k.fingerprint)
	case now.Unix() >= expires:
		return k, fmt.Errorf("key %s: expired at %v", k.fingerprint, time.Unix(expires, 0).UTC())
	case fields["Instance"] != instance:
		return k, fmt.Errorf("key %s: for the instance %q", k.fingerprint, fields["Instance"])
	}
	return k, nil
}

// fingerprintOf returns the fingerprint of a line of authorized_keys without
// options, as sshd prints it.
func fingerprintOf(line string) (string, error) {
	words := strings.Fields(line)
	if !strings.HasPrefix(line, "ssh-") || len(words) < 2 || strings.ContainsFunc(line, func(c rune) bool { return c < ' ' }) {
		return "", errors.New("not a key of ssh")
	}
	blob, err := base64.StdEncoding.DecodeString(words[1])
	if err != nil {
		return "", fmt.Errorf("key: %w", err)
	}
	sum := sha256.Sum256(blob)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:]), nil
}
