// Command attest proves to others what a machine has booted: it prints or serves an
// attestation document with their nonce.
//
// A TPM signs the values of its registers (a quote). On EC2, a NitroTPM signs a
// document that KMS accepts, and in an enclave the Nitro Security Module does.
//
// "attest kms-decrypt" has KMS decrypt a secret for the machine that such a document
// describes.
package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/slipway-build/slipway/guest/tpm"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("attest: ")
	if err := run(os.Args[1:], os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// wait is how long to wait for a TPM that another program uses.
const wait = 10 * time.Second

// An attester makes documents.
type attester struct {
	pcrs     []int
	userData []byte // for documents of Nitro
	key      []byte // public, in DER, for documents of Nitro
	open     func() (*tpm.TPM, error)
	eventLog string // file
	nsm      string // device

	mu sync.Mutex
}

func run(args []string, out io.Writer) error {
	a := &attester{
		open:     func() (*tpm.TPM, error) { return tpm.Open(wait) },
		eventLog: "/sys/kernel/security/tpm0/binary_bios_measurements", nsm: tpm.NSMDevice,
	}
	if len(args) > 0 && args[0] == "kms-decrypt" {
		return kmsDecrypt(args[1:], a)
	}
	flags := flag.NewFlagSet("attest", flag.ExitOnError)
	listen := flags.String("listen", "", "serve documents over HTTP at `ADDRESS`, for example :8090")
	nonce := flags.String("nonce", "", "`NONCE` in hexadecimal, for a document on standard output")
	pcrs := flags.String("pcrs", "4+7+9+11+12", "`PCRS` of the TPM in a quote")
	raw := flags.Bool("raw", false, "print only the document of a NitroTPM or an enclave, as KMS takes it")
	userData := flags.String("user-data", "", "`FILE` to put into the document of a NitroTPM or an enclave")
	key := flags.String("public-key", "", "`FILE` with a public key in DER, to which KMS encrypts")
	flags.Parse(args)
	if flags.NArg() > 0 {
		return fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	var err error
	if a.pcrs, err = tpm.ParsePCRs(*pcrs); err != nil {
		return fmt.Errorf("-pcrs: %w", err)
	}
	if a.userData, err = readOptional(*userData); err != nil {
		return err
	}
	if a.key, err = readOptional(*key); err != nil {
		return err
	}
	if *listen != "" {
		return a.serve(*listen)
	}
	n, err := hex.DecodeString(*nonce)
	if err != nil {
		return fmt.Errorf("-nonce: %w", err)
	}
	d, err := a.document(n)
	if err != nil {
		return err
	}
	if *raw {
		if d.Document == nil {
			return errNoNitro
		}
		_, err := out.Write(d.Document)
		return err
	}
	return d.write(out)
}

// readOptional reads a file, unless its name is "".
func readOptional(name string) ([]byte, error) {
	if name == "" {
		return nil, nil
	}
	return os.ReadFile(name)
}

// A document proves what a machine has booted. Its JSON form is stable: fields are
// only added.
type document struct {
	// Type is tpm2 for a quote, or nitrotpm or nsm for a document of Nitro.
	Type  string `json:"type"`
	Nonce string `json:"nonce"` // in hexadecimal

	Document []byte `json:"document,omitempty"` // COSE_Sign1, of Nitro

	Quote                  []byte                       `json:"quote,omitempty"`     // TPMS_ATTEST
	Signature              []byte                       `json:"signature,omitempty"` // TPMT_SIGNATURE
	Key                    string                       `json:"key,omitempty"`       // in PEM
	PCRs                   map[string]map[string]string `json:"pcrs,omitempty"`      // as slipway measurements --json prints them
	EventLog               []byte                       `json:"eventLog,omitempty"`
	EndorsementCertificate []byte                       `json:"endorsementCertificate,omitempty"` // in DER
}

// errNoNitro means that the machine has no document as KMS takes it.
var errNoNitro = errors.New("the machine has neither a NitroTPM nor a Nitro Security Module")

// inEnclave reports whether the machine is a Nitro enclave.
func (a *attester) inEnclave() bool {
	_, err := os.Stat(a.nsm)
	return err == nil
}

// forKMS returns a document of Nitro with a public key in DER.
func (a *attester) forKMS(key []byte) ([]byte, error) {
	a.key = key
	d, err := a.document(nil)
	if err != nil {
		return nil, err
	}
	return d.Document, nil
}

// maxEventLog limits the event log in a document, in bytes. Firmware reserves 64 KiB.
const maxEventLog = 1 << 20

// document makes a document.
func (a *attester) document(nonce []byte) (*document, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := &document{Nonce: hex.EncodeToString(nonce)}
	request := tpm.Request{Nonce: nonce, UserData: a.userData, PublicKey: a.key}
	var err error
	if a.inEnclave() {
		d.Type = "nsm"
		d.Document, err = tpm.EnclaveDocument(request)
		return d, err
	}
	t, err := a.open()
	if err != nil {
		return nil, err
	}
	defer t.Close()
	if t.IsNitro() {
		d.Type = "nitrotpm"
		d.Document, err = t.NitroDocument(request)
		return d, err
	}
	if a.userData != nil || a.key != nil {
		return nil, errNoNitro
	}
	return d, d.addQuote(t, nonce, a)
}

// addQuote adds the quote of a TPM.
func (d *document) addQuote(t *tpm.TPM, nonce []byte, a *attester) error {
	q, err := t.Quote(nonce, a.pcrs)
	if err != nil {
		return err
	}
	values := map[string]string{}
	for i, n := range a.pcrs {
		values[strconv.Itoa(n)] = hex.EncodeToString(q.Values[i])
	}
	d.Type, d.Quote, d.Signature, d.Key = "tpm2", q.Attest, q.Signature, string(q.Key)
	d.PCRs = map[string]map[string]string{"sha256": values}
	d.EndorsementCertificate = t.EndorsementCertificate()
	// The log explains the values, which are valid without it.
	f, err := os.Open(a.eventLog)
	if err != nil {
		return nil
	}
	defer f.Close()
	if d.EventLog, err = io.ReadAll(io.LimitReader(f, maxEventLog)); err != nil {
		return fmt.Errorf("event log: %w", err)
	}
	return nil
}

func (d *document) write(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(d)
}

// serve serves documents. Their signatures protect them, so HTTP suffices.
func (a *attester) serve(address string) error {
	s := &http.Server{Addr: address, Handler: a, ReadTimeout: 10 * time.Second, WriteTimeout: time.Minute, MaxHeaderBytes: 8 << 10}
	log.Printf("serving http://%s/attestation?nonce=HEX", address)
	return s.ListenAndServe()
}

// minNonce is the least size of a nonce of a client, in bytes: it must not guess one
// that somebody else has used.
const minNonce = 16

// ServeHTTP implements http.Handler.
func (a *attester) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/attestation" {
		http.NotFound(w, r)
		return
	}
	if r.Method != http.MethodGet {
		http.Error(w, "only GET is supported", http.StatusMethodNotAllowed)
		return
	}
	nonce, err := hex.DecodeString(r.URL.Query().Get("nonce"))
	if err != nil || len(nonce) < minNonce || len(nonce) > tpm.MaxNonce {
		http.Error(w, fmt.Sprintf("nonce must have %d to %d bytes in hexadecimal", minNonce, tpm.MaxNonce), http.StatusBadRequest)
		return
	}
	d, err := a.document(nonce)
	if err != nil {
		log.Print(err)
		http.Error(w, "the machine cannot attest: see its log", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if err := d.write(w); err != nil {
		log.Print(err)
	}
}
