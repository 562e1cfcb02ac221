package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

const (
	testRegion = "eu-central-1"
	testKey    = "arn:aws:kms:eu-central-1:123456789012:key/00000000-0000-4000-8000-000000000001"
)

var testCredentials = aws.Credentials{AccessKeyID: "ASIAEXAMPLE", SecretAccessKey: "secret key", SessionToken: "session"}

// TestKMSDecrypt checks that kms-decrypt writes a secret that a mock of KMS
// releases, and fails if the mock does not release it.
func TestKMSDecrypt(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*fakeKMS, *keyClient, *fakeModule)
		want   string // error; "" if there is a secret
	}{
		"the image":                {func(*fakeKMS, *keyClient, *fakeModule) {}, ""},
		"the key":                  {func(_ *fakeKMS, c *keyClient, _ *fakeModule) { c.keyID = testKey }, ""},
		"a service that is slow":   {func(k *fakeKMS, _ *keyClient, _ *fakeModule) { k.throttled = 2 }, ""},
		"another image":            {func(_ *fakeKMS, _ *keyClient, m *fakeModule) { m.pcr0[0] ^= 1 }, "AccessDeniedException"},
		"another key":              {func(_ *fakeKMS, c *keyClient, _ *fakeModule) { c.keyID = "alias/other" }, "IncorrectKeyException"},
		"another context":          {func(_ *fakeKMS, c *keyClient, _ *fakeModule) { c.context = nil }, "InvalidCiphertextException"},
		"a forged document":        {func(k *fakeKMS, _ *keyClient, _ *fakeModule) { k.module = newModule(t).key }, "signature of the document"},
		"a secret for another key": {func(k *fakeKMS, _ *keyClient, _ *fakeModule) { k.encryptTo = &recipientKey.PublicKey }, "envelope of KMS: crypto/rsa: decryption error"},
		"no envelope":              {func(k *fakeKMS, _ *keyClient, _ *fakeModule) { k.plaintext = true }, "envelope of KMS: damaged BER"},
		"a server in between":      {func(_ *fakeKMS, c *keyClient, _ *fakeModule) { c.roots = x509.NewCertPool() }, "unknown authority"},
		"another server":           {func(_ *fakeKMS, c *keyClient, _ *fakeModule) { c.region = "eu-west-1" }, "not kms.eu-west-1.amazonaws.com"},
		"no module": {func(_ *fakeKMS, c *keyClient, _ *fakeModule) {
			c.attest = func([]byte) ([]byte, error) { return nil, errNoNitro }
		}, errNoNitro.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			module := newModule(t)
			service := &fakeKMS{t: t, module: module.key, policy: bytes.Clone(module.pcr0[:]), secret: []byte("the password\n")}
			server := httptest.NewUnstartedServer(service)
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			client := keyClient{attest: module.attest, dialMetadata: dialTo(httptest.NewServer(http.HandlerFunc(metadata)), t), context: map[string]string{"app": "vault"}, attempts: 3}
			client.roots = startTLS(t, server, "kms."+testRegion+".amazonaws.com")
			client.dialKMS = dialTo(server, t)
			test.change(service, &client, module)

			dir := t.TempDir()
			from, to := filepath.Join(dir, "ciphertext"), filepath.Join(dir, "secret")
			if err := os.WriteFile(from, []byte("ciphertext"), 0o600); err != nil {
				t.Fatal(err)
			}
			err := client.decryptFile(t.Context(), from, to, 0o440)
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("error %v, want %q", err, test.want)
				}
				if _, err := os.Stat(to); err == nil {
					t.Error("there is a secret")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(to)
			if err != nil || !bytes.Equal(got, service.secret) {
				t.Errorf("the secret is %q, %v", got, err)
			}
			if info, err := os.Stat(to); err != nil || info.Mode() != 0o440 {
				t.Errorf("the secret has the mode %v, %v", info.Mode(), err)
			}
		})
	}
	large := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(large, make([]byte, maxCiphertext+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (keyClient{}).decryptFile(t.Context(), large, large+".out", 0o400); err == nil || !strings.Contains(err.Error(), "more than 6144 bytes") {
		t.Errorf("a large file: %v", err)
	}
}

// dialTo returns a dialer that connects to a server, whatever the address, as the
// proxies of the parent instance do. The server stops at the end of the test.
func dialTo(server *httptest.Server, t *testing.T) dialer {
	t.Cleanup(server.Close)
	address := server.Listener.Addr().String()
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
}

// startTLS starts a server with a certificate for a name and returns who signed it.
func startTLS(t *testing.T, server *httptest.Server, name string) *x509.CertPool {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &recipientKey.PublicKey, recipientKey)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: recipientKey}}}
	server.StartTLS()
	roots := x509.NewCertPool()
	roots.AddCert(certificate)
	return roots
}

// metadata is the part of EC2's metadata service that kms-decrypt uses, version 2
// only.
func metadata(w http.ResponseWriter, r *http.Request) {
	const token, tokenHeader, ttlHeader = "token", "X-aws-ec2-metadata-token", "X-aws-ec2-metadata-token-ttl-seconds"
	switch {
	case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token" && r.Header.Get(ttlHeader) != "":
		w.Header().Set(ttlHeader, r.Header.Get(ttlHeader))
		io.WriteString(w, token)
	case r.Header.Get(tokenHeader) != token:
		http.Error(w, "no token", http.StatusUnauthorized)
	case r.URL.Path == "/latest/meta-data/iam/security-credentials/":
		io.WriteString(w, "enclaves")
	case r.URL.Path == "/latest/meta-data/iam/security-credentials/enclaves":
		json.NewEncoder(w).Encode(map[string]string{
			"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": testCredentials.AccessKeyID, "SecretAccessKey": testCredentials.SecretAccessKey,
			"Token": testCredentials.SessionToken, "Expiration": time.Now().Add(time.Hour).UTC().Format(time.RFC3339),
		})
	case r.URL.Path == "/latest/dynamic/instance-identity/document":
		json.NewEncoder(w).Encode(map[string]string{"region": testRegion})
	default:
		http.NotFound(w, r)
	}
}

// fakeKMS is the action Decrypt of KMS (AWS KMS API Reference). It verifies the
// signature of a request and the attestation document, and has OpenSSL encrypt the
// secret.
type fakeKMS struct {
	t         *testing.T
	module    *ecdsa.PrivateKey // whose signature documents must have
	policy    []byte            // PCR0 that may decrypt
	secret    []byte
	throttled int            // requests to refuse first
	encryptTo *rsa.PublicKey // instead of the key in the document
	plaintext bool           // answer as without Recipient
}

// An apiError is an error of KMS.
type apiError struct{ code, message string }

func (e apiError) Error() string { return e.code + ": " + e.message }

func (k *fakeKMS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	out, err := k.decrypt(r)
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if err != nil {
		e := apiError{"ValidationException", err.Error()}
		errors.As(err, &e)
		w.WriteHeader(http.StatusBadRequest)
		out = map[string]any{"__type": e.code, "message": e.message}
	}
	json.NewEncoder(w).Encode(out)
}

func (k *fakeKMS) decrypt(r *http.Request) (map[string]any, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	if err := verifySignature(r, body); err != nil {
		return nil, apiError{"InvalidSignatureException", err.Error()}
	}
	if k.throttled > 0 {
		k.throttled--
		return nil, apiError{"ThrottlingException", "later"}
	}
	var in struct {
		CiphertextBlob    []byte
		EncryptionContext map[string]string
		KeyId             *string
		Recipient         struct {
			AttestationDocument    []byte
			KeyEncryptionAlgorithm string
		}
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return nil, err
	}
	switch {
	case r.Method != http.MethodPost || r.URL.Path != "/" || r.Header.Get("X-Amz-Target") != "TrentService.Decrypt" || r.Header.Get("Content-Type") != "application/x-amz-json-1.1":
		return nil, fmt.Errorf("%s %s with %v", r.Method, r.URL, r.Header)
	case in.Recipient.KeyEncryptionAlgorithm != "RSAES_OAEP_SHA_256":
		return nil, fmt.Errorf("KeyEncryptionAlgorithm %q", in.Recipient.KeyEncryptionAlgorithm)
	case in.KeyId != nil && *in.KeyId != testKey:
		return nil, apiError{"IncorrectKeyException", *in.KeyId}
	case string(in.CiphertextBlob) != "ciphertext" || !maps.Equal(in.EncryptionContext, map[string]string{"app": "vault"}):
		return nil, apiError{"InvalidCiphertextException", "another ciphertext or context"}
	}
	document, err := verifyDocument(in.Recipient.AttestationDocument, &k.module.PublicKey)
	if err != nil {
		return nil, err
	}
	if pcr0, _ := document["pcrs"].(map[any]any)[0].([]byte); !bytes.Equal(pcr0, k.policy) {
		return nil, apiError{"AccessDeniedException", "another image"}
	}
	der, _ := document["public_key"].([]byte)
	public, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, err
	}
	to, ok := public.(*rsa.PublicKey)
	if !ok || to.Size() < 2048/8 {
		return nil, fmt.Errorf("the public key is a %T", public)
	}
	if k.encryptTo != nil {
		to = k.encryptTo
	}
	if k.plaintext {
		return map[string]any{"KeyId": testKey, "Plaintext": k.secret}, nil
	}
	return map[string]any{"KeyId": testKey, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT", "CiphertextForRecipient": opensslEnvelope(k.t, k.secret, to, likeKMS...)}, nil
}

// verifySignature signs the request again, and compares.
func verifySignature(r *http.Request, body []byte) error {
	_, list, _ := strings.Cut(r.Header.Get("Authorization"), "SignedHeaders=")
	list, _, _ = strings.Cut(list, ",")
	date, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil {
		return err
	}
	again, err := http.NewRequest(r.Method, "https://"+r.Host+r.URL.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(list, ";") {
		if v := r.Header.Get(name); v != "" && name != "content-length" {
			again.Header.Set(name, v)
		}
	}
	sum := sha256.Sum256(body)
	if err := v4.NewSigner().SignHTTP(context.Background(), testCredentials, again, hex.EncodeToString(sum[:]), "kms", testRegion, date); err != nil {
		return err
	}
	if got, want := r.Header.Get("Authorization"), again.Header.Get("Authorization"); got != want {
		return fmt.Errorf("Authorization is %q, want %q", got, want)
	}
	return nil
}

// A fakeModule makes documents as the Nitro Security Module does, which its own key
// signs.
type fakeModule struct {
	key  *ecdsa.PrivateKey
	pcr0 [48]byte
}

func newModule(t *testing.T) *fakeModule {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &fakeModule{key, sha512.Sum384([]byte("image"))}
}

// protected is the protected header of a document, {1: -35}: ECDSA with SHA-384
// (RFC 9053, section 2.1).
var protected = []byte{0xa1, 0x01, 0x38, 0x22}

// attest returns a document with a public key: COSE_Sign1 (RFC 9052, section 4.2)
// with the fields that "Verifying the root of trust" of AWS lists.
func (m *fakeModule) attest(public []byte) ([]byte, error) {
	payload := cborMap(
		cborText("module_id"), cborText("i-0123456789abcdef0-enc0123456789abcdef"),
		cborText("digest"), cborText("SHA384"),
		cborText("timestamp"), cborHead(0, int(time.Now().Unix())),
		cborText("pcrs"), cborMap(cborHead(0, 0), cborBytes(m.pcr0[:])),
		cborText("public_key"), cborBytes(public),
	)
	digest := sha512.Sum384(toBeSigned(payload))
	r, s, err := ecdsa.Sign(rand.Reader, m.key, digest[:])
	if err != nil {
		return nil, err
	}
	signature := s.FillBytes(make([]byte, 96))
	r.FillBytes(signature[:48])
	return cborArray(cborBytes(protected), cborMap(), cborBytes(payload), cborBytes(signature)), nil
}

// toBeSigned is Sig_structure of RFC 9052, section 4.4.
func toBeSigned(payload []byte) []byte {
	return cborArray(cborText("Signature1"), cborBytes(protected), cborBytes(nil), cborBytes(payload))
}

// verifyDocument verifies a document and returns its fields.
func verifyDocument(document []byte, key *ecdsa.PublicKey) (map[any]any, error) {
	value, rest := decodeCBOR(document)
	parts, _ := value.([]any)
	if len(parts) != 4 || len(rest) > 0 {
		return nil, errors.New("the document is no COSE_Sign1")
	}
	payload, _ := parts[2].([]byte)
	signature, _ := parts[3].([]byte)
	digest := sha512.Sum384(toBeSigned(payload))
	if len(signature) != 96 || !ecdsa.Verify(key, digest[:], new(big.Int).SetBytes(signature[:48]), new(big.Int).SetBytes(signature[48:])) {
		return nil, errors.New("the signature of the document is invalid")
	}
	fields, _ := decodeCBOR(payload)
	m, _ := fields.(map[any]any)
	return m, nil
}

// CBOR, RFC 8949, section 3.

func cborHead(major byte, n int) []byte {
	if n < 24 {
		return []byte{major<<5 | byte(n)}
	}
	return binary.BigEndian.AppendUint32([]byte{major<<5 | 26}, uint32(n))
}

func cborBytes(b []byte) []byte      { return append(cborHead(2, len(b)), b...) }
func cborText(s string) []byte       { return append(cborHead(3, len(s)), s...) }
func cborArray(all ...[]byte) []byte { return append(cborHead(4, len(all)), bytes.Join(all, nil)...) }
func cborMap(all ...[]byte) []byte   { return append(cborHead(5, len(all)/2), bytes.Join(all, nil)...) }

// decodeCBOR returns the first value of data that the functions above encoded.
func decodeCBOR(data []byte) (value any, rest []byte) {
	major, n, rest := data[0]>>5, int(data[0]&31), data[1:]
	if n == 26 {
		n, rest = int(binary.BigEndian.Uint32(rest)), rest[4:]
	}
	switch major {
	case 2:
		return rest[:n], rest[n:]
	case 3:
		return string(rest[:n]), rest[n:]
	case 4:
		all := make([]any, n)
		for i := range all {
			all[i], rest = decodeCBOR(rest)
		}
		return all, rest
	case 5:
		all := map[any]any{}
		for range n {
			var k, v any
			k, rest = decodeCBOR(rest)
			v, rest = decodeCBOR(rest)
			all[k] = v
		}
		return all, rest
	}
	return n, rest
}
