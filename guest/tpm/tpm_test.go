package tpm

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/slipway-build/slipway/internal/testutil/tpmtest"
)

// boot restarts the TPM after a machine has booted.
func boot(e *tpmtest.Emulator, machine string) *TPM { return New(e.Boot(machine)) }

var pcrs = []int{4, 7, 11}

// seal seals a secret and returns it as a disk keeps it.
func seal(t *testing.T, tpm *TPM, secret, context string) *Sealed {
	t.Helper()
	s, err := tpm.Seal([]byte(secret), []byte(context), pcrs)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte(secret)) {
		t.Error("the secret is in what is stored")
	}
	var stored Sealed
	if err := json.Unmarshal(text, &stored); err != nil {
		t.Fatal(err)
	}
	return &stored
}

// TestSeal checks that only the machine that sealed a secret unseals it.
func TestSeal(t *testing.T) {
	e := tpmtest.New(t)
	sealed := seal(t, boot(e, "good"), "the key", "disk 1")
	good := boot(e, "good")
	for range 5 { // nothing remains in the TPM
		if got, err := good.Unseal(sealed, []byte("disk 1"), pcrs); err != nil || string(got) != "the key" {
			t.Fatalf("after a reboot: %q, %v", got, err)
		}
	}
	refused := func(what, want string, tpm *TPM, s Sealed, context string, pcrs []int) {
		t.Helper()
		if got, err := tpm.Unseal(&s, []byte(context), pcrs); !errors.Is(err, ErrNotSealed) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %q, %v, want %s", what, got, err, want)
		}
	}
	refused("another context", "for another context", good, *sealed, "disk 2", pcrs)
	refused("other registers", "for the PCRs 4+7+11, not 7", good, *sealed, "disk 1", []int{7})
	for name, field := range map[string]func(*Sealed) *[]byte{
		"public": func(s *Sealed) *[]byte { return &s.Public }, "private": func(s *Sealed) *[]byte { return &s.Private },
		"creation": func(s *Sealed) *[]byte { return &s.Creation }, "ticket": func(s *Sealed) *[]byte { return &s.Ticket },
	} {
		for _, at := range []int{0, 1, 20, -1} {
			changed := *sealed
			f := field(&changed)
			*f = bytes.Clone(*f)
			if at < 0 {
				at += len(*f)
			}
			(*f)[at] ^= 1
			refused(name, "", good, changed, "disk 1", pcrs)
			*f = (*f)[:at]
			refused(name+" cut", "", good, changed, "disk 1", pcrs)
		}
	}
	refused("another TPM", "another TPM did", boot(tpmtest.New(t), "good"), *sealed, "disk 1", pcrs)
	bad := boot(e, "bad")
	refused("another machine", "the values of the PCRs 4+7+11 were others", bad, *sealed, "disk 1", pcrs)
	// The TPM refuses too, whatever this package compares.
	unchecked := &Sealed{PCRs: pcrs, Public: sealed.Public, Private: sealed.Private, Creation: sealed.Creation, Ticket: sealed.Ticket}
	if got, err := unsealDirectly(bad, unchecked); err == nil {
		t.Errorf("the TPM unseals %q", got)
	}

	// Another machine seals a key of its own for the values that the good one will
	// have, which it can compute.
	forged := sealFor(t, bad, sealed)
	good = boot(e, "good")
	if got, err := unsealDirectly(good, forged); err != nil || string(got) != "a key of somebody else" {
		t.Fatalf("the forged secret: %q, %v", got, err)
	}
	refused("a forged secret", "other software did", good, *forged, "disk 1", pcrs)
	// It shows the proof of the good machine's secret instead of its own.
	forged.Creation, forged.Ticket = sealed.Creation, sealed.Ticket
	refused("a forged secret with another proof", "proof of its creation is invalid", good, *forged, "disk 1", pcrs)
}

// unsealDirectly asks the TPM, without the checks of Unseal.
func unsealDirectly(t *TPM, s *Sealed) ([]byte, error) {
	public, err := tpm2.Unmarshal[tpm2.TPM2BPublic](s.Public)
	if err != nil {
		return nil, err
	}
	private, err := tpm2.Unmarshal[tpm2.TPM2BPrivate](s.Private)
	if err != nil {
		return nil, err
	}
	parent, err := t.primary(tpm2.TPMRHOwner, tpm2.ECCSRKTemplate)
	if err != nil {
		return nil, err
	}
	defer t.flush(parent.ObjectHandle)
	object, err := tpm2.Load{ParentHandle: tpm2.AuthHandle{Handle: parent.ObjectHandle, Name: parent.Name, Auth: tpm2.PasswordAuth(nil)}, InPrivate: *private, InPublic: *public}.Execute(t.tpm)
	if err != nil {
		return nil, err
	}
	defer t.flush(object.ObjectHandle)
	return t.unseal(object, parent, s.PCRs)
}

// sealFor seals a secret on a machine with the policy of another secret.
func sealFor(t *testing.T, machine *TPM, s *Sealed) *Sealed {
	t.Helper()
	public, err := tpm2.Unmarshal[tpm2.TPM2BPublic](s.Public)
	if err != nil {
		t.Fatal(err)
	}
	contents, err := public.Contents()
	if err != nil {
		t.Fatal(err)
	}
	forged, err := machine.seal([]byte("a key of somebody else"), []byte("disk 1"), pcrs, contents.AuthPolicy.Buffer)
	if err != nil {
		t.Fatal(err)
	}
	return forged
}

// TestUnmeasured checks that no secret is sealed for registers that say nothing.
func TestUnmeasured(t *testing.T) {
	tpm := boot(tpmtest.New(t), "")
	for _, pcrs := range [][]int{{4, 7, 11}, {17}} {
		if _, err := tpm.Seal([]byte("x"), nil, pcrs); err == nil || !strings.Contains(err.Error(), "nothing has been measured into PCR") {
			t.Errorf("%v: %v", pcrs, err)
		}
	}
}

func TestParsePCRs(t *testing.T) {
	for text, want := range map[string]string{"11+7": "7+11", "0": "0", "23": "23", "": "", "7,11": "", "24": "", "-1": "", "7+7": ""} {
		pcrs, err := ParsePCRs(text)
		if (err == nil) != (want != "") || err == nil && FormatPCRs(pcrs) != want {
			t.Errorf("%q: %v, %v", text, pcrs, err)
		}
	}
}
