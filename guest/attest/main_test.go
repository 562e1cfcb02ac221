package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/guest/tpm"
	"github.com/slipway-build/slipway/internal/testutil/need"
	"github.com/slipway-build/slipway/internal/testutil/tpmtest"
)

// TestServe checks documents with tpm2_checkquote.
func TestServe(t *testing.T) {
	need.Program(t, "tpm2_checkquote", "tpm2-tools")
	dir := t.TempDir()
	eventLog := filepath.Join(dir, "log")
	if err := os.WriteFile(eventLog, []byte("events"), 0o600); err != nil {
		t.Fatal(err)
	}
	transport := tpmtest.New(t).Boot("good")
	a := &attester{pcrs: []int{4, 11, 12}, eventLog: eventLog, nsm: filepath.Join(dir, "nsm"), open: func() (*tpm.TPM, error) { return tpm.New(tpmtest.Shared(transport)), nil }}
	server := httptest.NewServer(a)
	defer server.Close()
	get := func(query string) (int, document) {
		t.Helper()
		r, err := http.Get(server.URL + query)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		var d document
		if r.StatusCode == http.StatusOK {
			if err := json.NewDecoder(r.Body).Decode(&d); err != nil {
				t.Fatal(err)
			}
		}
		return r.StatusCode, d
	}
	nonce := strings.Repeat("0123456789abcdef", 2)
	status, d := get("/attestation?nonce=" + nonce)
	measured := sha256.Sum256([]byte("good"))
	value := sha256.Sum256(append(make([]byte, 32), measured[:]...))
	if status != http.StatusOK || d.Type != "tpm2" || d.Nonce != nonce || string(d.EventLog) != "events" || d.PCRs["sha256"]["11"] != hex.EncodeToString(value[:]) ||
		d.PCRs["sha256"]["12"] != strings.Repeat("0", 64) {
		t.Fatalf("%d: %+v", status, d)
	}
	check := func(d document, nonce string) error {
		for name, data := range map[string][]byte{"quote": d.Quote, "signature": d.Signature, "key": []byte(d.Key)} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		out, err := exec.Command("tpm2_checkquote", "-u", filepath.Join(dir, "key"), "-m", filepath.Join(dir, "quote"), "-s", filepath.Join(dir, "signature"), "-q", nonce).CombinedOutput()
		if err != nil {
			return errors.New(string(out))
		}
		return nil
	}
	if err := check(d, nonce); err != nil {
		t.Error(err)
	}
	// What the TPM has signed is a digest of the values.
	values := sha256.New()
	for _, n := range []string{"4", "11", "12"} {
		v, err := hex.DecodeString(d.PCRs["sha256"][n])
		if err != nil {
			t.Fatal(err)
		}
		values.Write(v)
	}
	printed, err := exec.Command("tpm2_print", "-t", "TPMS_ATTEST", filepath.Join(dir, "quote")).Output()
	if want := "pcrDigest: " + hex.EncodeToString(values.Sum(nil)); err != nil || !strings.Contains(string(printed), want) {
		t.Errorf("no %s: %v: %s", want, err, printed)
	}
	if check(d, strings.Repeat("0", 32)) == nil {
		t.Error("tpm2_checkquote accepts another nonce")
	}
	if _, again := get("/attestation?nonce=" + strings.Repeat("11", 64)); again.Key != d.Key || check(again, strings.Repeat("11", 64)) != nil {
		t.Error("another quote has another key")
	}
	for query, want := range map[string]int{
		"/": 404, "/attestation": 400, "/attestation?nonce=x": 400, "/attestation?nonce=" + nonce[2:]: 400, "/attestation?nonce=" + strings.Repeat("11", 65): 400,
	} {
		if got, _ := get(query); got != want {
			t.Errorf("%s: status %d, want %d", query, got, want)
		}
	}
	a.open = func() (*tpm.TPM, error) { return nil, tpm.ErrNone }
	if got, _ := get("/attestation?nonce=" + nonce); got != 500 {
		t.Errorf("without a TPM: status %d", got)
	}
}
