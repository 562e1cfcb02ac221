package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/mdlayher/vsock"
)

// parentCID is the CID of the parent instance for its enclaves.
const parentCID = 3

// maxCiphertext limits what KMS decrypts, in bytes (AWS KMS API Reference, Decrypt).
const maxCiphertext = 6144

// A dialer connects as [net.Dialer.DialContext] does.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// A keyClient asks KMS for secrets with an attestation document, so that KMS
// encrypts them for this machine only.
type keyClient struct {
	attest       func(key []byte) ([]byte, error) // returns a document with a public key in DER
	dialKMS      dialer
	dialMetadata dialer
	roots        *x509.CertPool // nil is those of the system
	region       string         // "" is the region of the instance
	endpoint     string         // URL; "" is that of the region
	keyID        string         // "" is any key
	context      map[string]string
	attempts     int // how often a request is sent to KMS
}

// kmsDecrypt runs "attest kms-decrypt".
func kmsDecrypt(args []string, a *attester) error {
	flags := flag.NewFlagSet("attest kms-decrypt", flag.ExitOnError)
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "Usage: attest kms-decrypt [flags] CIPHERTEXT SECRET\n\nDecrypts the file CIPHERTEXT with AWS KMS into the file SECRET.")
		flags.PrintDefaults()
	}
	// The proxies on the parent instance may start after the enclave.
	c := keyClient{attest: a.forKMS, context: map[string]string{}, attempts: 8}
	flags.StringVar(&c.region, "region", "", "`REGION` of the key; default: the region of the instance")
	flags.StringVar(&c.endpoint, "endpoint", "", "`URL` of KMS; default: that of the region")
	flags.StringVar(&c.keyID, "key-id", "", "`ID` or ARN of the key, for no other key to be used")
	flags.Func("context", "encryption context `KEY=VALUE`; may be repeated", func(text string) error {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return errors.New("want KEY=VALUE")
		}
		c.context[key] = value
		return nil
	})
	kmsPort := flags.Uint("kms-port", 8000, "in an enclave: vsock `PORT` of the parent instance that forwards to KMS")
	metadataPort := flags.Uint("metadata-port", 8001, "in an enclave: vsock `PORT` of the parent instance that forwards to its metadata")
	mode := flags.String("mode", "0400", "permissions of SECRET in `OCTAL`")
	flags.Parse(args)
	if flags.NArg() != 2 {
		flags.Usage()
		os.Exit(2)
	}
	permissions, err := strconv.ParseUint(*mode, 8, 9)
	if err != nil {
		return fmt.Errorf("-mode: %w", err)
	}
	var network net.Dialer
	c.dialKMS, c.dialMetadata = network.DialContext, network.DialContext
	if a.inEnclave() {
		c.dialKMS, c.dialMetadata = dialParent(uint32(*kmsPort)), dialParent(uint32(*metadataPort))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	return c.decryptFile(ctx, flags.Arg(0), flags.Arg(1), fs.FileMode(permissions))
}

// dialParent returns a dialer that connects to a vsock port of the parent instance
// instead of the address.
func dialParent(port uint32) dialer {
	return func(context.Context, string, string) (net.Conn, error) { return vsock.Dial(parentCID, port, nil) }
}

// decryptFile decrypts a file into another one with these permissions.
func (c keyClient) decryptFile(ctx context.Context, from, to string, mode fs.FileMode) error {
	ciphertext, err := readLimited(from, maxCiphertext)
	if err != nil {
		return err
	}
	secret, err := c.decrypt(ctx, ciphertext)
	if err != nil {
		return fmt.Errorf("decrypt %s: %w", from, err)
	}
	// A reader must not find a part of the secret, or an old mode.
	temporary := to + ".tmp"
	if err := os.WriteFile(temporary, secret, 0o600); err != nil {
		return err
	}
	if err := errors.Join(os.Chmod(temporary, mode), os.Rename(temporary, to)); err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	return nil
}

// decrypt has KMS decrypt a ciphertext.
func (c keyClient) decrypt(ctx context.Context, ciphertext []byte) ([]byte, error) {
	metadata := imds.New(imds.Options{HTTPClient: c.httpClient(c.dialMetadata), EnableFallback: aws.FalseTernary})
	region := c.region
	if region == "" {
		out, err := metadata.GetRegion(ctx, nil)
		if err != nil {
			return nil, fmt.Errorf("region of the instance: %w", err)
		}
		region = out.Region
	}
	options := kms.Options{
		Region:           region,
		Credentials:      aws.NewCredentialsCache(ec2rolecreds.New(func(o *ec2rolecreds.Options) { o.Client = metadata })),
		HTTPClient:       c.httpClient(c.dialKMS),
		RetryMaxAttempts: c.attempts,
	}
	if c.endpoint != "" {
		options.BaseEndpoint = &c.endpoint
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	document, err := c.attest(public)
	if err != nil {
		return nil, err
	}
	in := &kms.DecryptInput{
		CiphertextBlob:    ciphertext,
		EncryptionContext: c.context,
		Recipient: &types.RecipientInfo{
			AttestationDocument:    document,
			KeyEncryptionAlgorithm: types.KeyEncryptionMechanismRsaesOaepSha256,
		},
	}
	if c.keyID != "" {
		in.KeyId = &c.keyID
	}
	out, err := kms.New(options).Decrypt(ctx, in)
	if err != nil {
		return nil, err
	}
	secret, err := openEnvelope(out.CiphertextForRecipient, key)
	if err != nil {
		return nil, fmt.Errorf("envelope of KMS: %w", err)
	}
	return secret, nil
}

// httpClient returns a client that connects with a dialer.
func (c keyClient) httpClient(dial dialer) *http.Client {
	return &http.Client{
		Transport: &http.Transport{DialContext: dial, TLSClientConfig: &tls.Config{RootCAs: c.roots}},
		Timeout:   30 * time.Second,
	}
}

// readLimited reads a file of at most limit bytes.
func readLimited(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s has more than %d bytes, which KMS does not decrypt", name, limit)
	}
	return data, err
}
