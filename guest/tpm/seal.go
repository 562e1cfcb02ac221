package tpm

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// A Sealed is a secret that only this TPM can unseal, while its registers have the
// values that they had when it was sealed. It contains nothing secret.
type Sealed struct {
	PCRs     []int  `json:"pcrs"`
	Public   []byte `json:"public"`   // TPM2B_PUBLIC
	Private  []byte `json:"private"`  // TPM2B_PRIVATE
	Creation []byte `json:"creation"` // TPMS_CREATION_DATA
	Ticket   []byte `json:"ticket"`   // TPMT_TK_CREATION
}

// ErrNotSealed is the error for a secret that this machine did not seal: another
// TPM did, other software, or for another context.
var ErrNotSealed = errors.New("not sealed by this machine")

// Seal seals a secret of at most 128 bytes. The context is bound to it: Unseal
// requires the same.
func (t *TPM) Seal(secret, context []byte, pcrs []int) (*Sealed, error) {
	policy, _, err := t.policy(pcrs)
	if err != nil {
		return nil, err
	}
	return t.seal(secret, context, pcrs, policy)
}

func (t *TPM) seal(secret, context []byte, pcrs []int, policy []byte) (*Sealed, error) {
	parent, err := t.primary(tpm2.TPMRHOwner, tpm2.ECCSRKTemplate)
	if err != nil {
		return nil, err
	}
	defer t.flush(parent.ObjectHandle)
	session, err := encryption(parent, tpm2.AESEncryption(128, tpm2.EncryptIn))
	if err != nil {
		return nil, err
	}
	r, err := tpm2.Create{
		ParentHandle: tpm2.AuthHandle{Handle: parent.ObjectHandle, Name: parent.Name, Auth: tpm2.PasswordAuth(nil)},
		InSensitive:  tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: secret})}},
		InPublic:     tpm2.New2B(sealedTemplate(policy)),
		OutsideInfo:  tpm2.TPM2BData{Buffer: digest(context)},
		CreationPCR:  selection(pcrs),
	}.Execute(t.tpm, session)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return &Sealed{
		PCRs: slices.Clone(pcrs), Public: tpm2.Marshal(r.OutPublic), Private: tpm2.Marshal(r.OutPrivate),
		Creation: r.CreationData.Bytes(), Ticket: tpm2.Marshal(r.CreationTicket),
	}, nil
}

// Unseal returns a secret. The error is ErrNotSealed if the machine did not seal it
// for the context and the registers.
//
// That a secret can be unsealed does not say who sealed it: any program on this
// machine could have, with a policy for the values that the registers have now. So
// Unseal also requires the TPM's proof that the registers had these values when the
// secret was sealed.
func (t *TPM) Unseal(s *Sealed, context []byte, pcrs []int) ([]byte, error) {
	if !slices.Equal(s.PCRs, pcrs) {
		return nil, fmt.Errorf("%w: for the PCRs %s, not %s", ErrNotSealed, FormatPCRs(s.PCRs), FormatPCRs(pcrs))
	}
	public, err := tpm2.Unmarshal[tpm2.TPM2BPublic](s.Public)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotSealed, err)
	}
	private, err := tpm2.Unmarshal[tpm2.TPM2BPrivate](s.Private)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotSealed, err)
	}
	policy, values, err := t.policy(pcrs)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(public.Bytes(), tpm2.Marshal(sealedWith(public, policy))) {
		return nil, fmt.Errorf("%w: the values of the PCRs %s were others: the firmware, its keys or the machine have changed", ErrNotSealed, FormatPCRs(pcrs))
	}
	parent, err := t.primary(tpm2.TPMRHOwner, tpm2.ECCSRKTemplate)
	if err != nil {
		return nil, err
	}
	defer t.flush(parent.ObjectHandle)
	object, err := tpm2.Load{
		ParentHandle: tpm2.AuthHandle{Handle: parent.ObjectHandle, Name: parent.Name, Auth: tpm2.PasswordAuth(nil)},
		InPrivate:    *private, InPublic: *public,
	}.Execute(t.tpm)
	if err != nil {
		return nil, fmt.Errorf("%w: another TPM did: %w", ErrNotSealed, err)
	}
	defer t.flush(object.ObjectHandle)
	if err := t.checkCreation(s, object, context, values); err != nil {
		return nil, err
	}
	return t.unseal(object, parent, pcrs)
}

// unseal unseals a loaded object.
func (t *TPM) unseal(object *tpm2.LoadResponse, parent *tpm2.CreatePrimaryResponse, pcrs []int) ([]byte, error) {
	session, err := encryption(parent, tpm2.AESEncryption(128, tpm2.EncryptOut))
	if err != nil {
		return nil, err
	}
	r, err := tpm2.Unseal{ItemHandle: tpm2.AuthHandle{
		Handle: object.ObjectHandle, Name: object.Name,
		Auth: tpm2.Policy(tpm2.TPMAlgSHA256, 16, func(t transport.TPM, handle tpm2.TPMISHPolicy, _ tpm2.TPM2BNonce) error {
			_, err := tpm2.PolicyPCR{PolicySession: handle, Pcrs: selection(pcrs)}.Execute(t)
			return err
		}),
	}}.Execute(t.tpm, session)
	if err != nil {
		return nil, fmt.Errorf("unseal: %w", err)
	}
	return r.OutData.Buffer, nil
}

// checkCreation checks that the object was created for a context, while registers
// had the values that they have now.
func (t *TPM) checkCreation(s *Sealed, object *tpm2.LoadResponse, context []byte, values [][]byte) error {
	creation, err := tpm2.Unmarshal[tpm2.TPMSCreationData](s.Creation)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotSealed, err)
	}
	ticket, err := tpm2.Unmarshal[tpm2.TPMTTKCreation](s.Ticket)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotSealed, err)
	}
	// Without a key that signs, the TPM still checks the ticket.
	if _, err := (tpm2.CertifyCreation{
		SignHandle:     tpm2.AuthHandle{Handle: tpm2.TPMRHNull, Auth: tpm2.PasswordAuth(nil)},
		ObjectHandle:   tpm2.NamedHandle{Handle: object.ObjectHandle, Name: object.Name},
		CreationHash:   tpm2.TPM2BDigest{Buffer: digest(s.Creation)},
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		CreationTicket: *ticket,
	}).Execute(t.tpm); err != nil {
		return fmt.Errorf("%w: the proof of its creation is invalid: %w", ErrNotSealed, err)
	}
	switch {
	case !bytes.Equal(tpm2.Marshal(creation.PCRSelect), tpm2.Marshal(selection(s.PCRs))),
		!bytes.Equal(creation.PCRDigest.Buffer, digest(values...)):
		return fmt.Errorf("%w: other software did", ErrNotSealed)
	case !bytes.Equal(creation.OutsideInfo.Buffer, digest(context)):
		return fmt.Errorf("%w: for another context", ErrNotSealed)
	}
	return nil
}

// policy returns the digest of the policy that registers have the values that they
// have now, and these values.
func (t *TPM) policy(pcrs []int) (policy []byte, values [][]byte, err error) {
	if values, err = t.measuredPCRs(pcrs); err != nil {
		return nil, nil, err
	}
	c, err := tpm2.NewPolicyCalculator(tpm2.TPMAlgSHA256)
	if err != nil {
		return nil, nil, err
	}
	if err := (tpm2.PolicyPCR{PcrDigest: tpm2.TPM2BDigest{Buffer: digest(values...)}, Pcrs: selection(pcrs)}).Update(c); err != nil {
		return nil, nil, err
	}
	return c.Hash().Digest, values, nil
}

// sealedTemplate returns the public part of a secret with a policy and without a
// password. It cannot leave the TPM.
func sealedTemplate(policy []byte) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, NoDA: true},
		AuthPolicy:       tpm2.TPM2BDigest{Buffer: policy},
	}
}

// sealedWith returns the template with the unique identifier of a public part.
func sealedWith(public *tpm2.TPM2BPublic, policy []byte) tpm2.TPMTPublic {
	template := sealedTemplate(policy)
	if p, err := public.Contents(); err == nil && p.Type == template.Type {
		template.Parameters, template.Unique = p.Parameters, p.Unique
	}
	return template
}

// encryption returns a session that encrypts a parameter between this program and the
// TPM.
func encryption(key *tpm2.CreatePrimaryResponse, option tpm2.AuthOption) (tpm2.Session, error) {
	public, err := key.OutPublic.Contents()
	if err != nil {
		return nil, err
	}
	return tpm2.HMAC(tpm2.TPMAlgSHA256, 16, option, tpm2.Salted(key.ObjectHandle, *public)), nil
}

// digest returns the SHA-256 of parts.
func digest(parts ...[]byte) []byte {
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}
