package format

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/slipway-build/slipway/exporter/eif"
	"github.com/slipway-build/slipway/exporter/measure"
	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/kernel"
)

// PCRsSuffix is the suffix of the file with the values of the registers, of an
// enclave or of a TPM.
const PCRsSuffix = ".pcrs.json"

// KMSPolicySuffix is the suffix of the file with a policy for a key in AWS KMS.
const KMSPolicySuffix = ".kms-policy.json"

func init() {
	register(Format{
		Name:        "eif",
		Description: "enclave image for AWS Nitro Enclaves, the values of its registers, and with ENCLAVE_ROLE a policy for a key in AWS KMS",
		Suffixes:    []string{".eif", PCRsSuffix, KMSPolicySuffix},
		Segments:    segment.CPIO,
		Options:     Enclave,
		writer:      eifWriter{},
	})
}

type eifWriter struct{}

// write writes an enclave image. Its first ramdisk ends with the section init, so
// that PCR1 measures what starts the machine, and PCR2 what the machine runs.
func (eifWriter) write(j *job) error {
	if j.in.Kernel == "" {
		return errors.New("an enclave image needs a kernel: set kernel.image in the machine")
	}
	k, err := j.opened.Open(j.in.Kernel)
	if err != nil {
		return err
	}
	release, err := kernel.Release(k, k.Size)
	if err != nil && !errors.Is(err, kernel.ErrFormat) {
		return err
	}
	ramdisks, err := j.ramdisks()
	if err != nil {
		return err
	}
	image, pcrs, err := eif.New(eif.Image{
		Architecture: j.in.Architecture,
		Kernel:       k,
		Cmdline:      j.in.Cmdline,
		Ramdisks:     ramdisks,
		Signer:       j.in.EnclaveSigner,
		Metadata: eif.Metadata{
			Name:  j.in.Name,
			Build: eif.Build{Time: j.in.Time.UTC(), Tool: "slipway", OperatingSystem: "linux", KernelVersion: release},
		},
	})
	if err != nil {
		return err
	}
	if err := j.create(j.format.Suffixes[0], image.WriteFile); err != nil {
		return err
	}
	if j.in.Role != "" {
		pcrs.PCR3 = eif.MeasureText(j.in.Role)
	}
	if j.in.Instance != "" {
		pcrs.PCR4 = eif.MeasureText(j.in.Instance)
	}
	if err := j.create(PCRsSuffix, func(f *os.File) error { return writePCRs(f, pcrs) }); err != nil || j.in.Role == "" {
		return err
	}
	return j.create(KMSPolicySuffix, func(f *os.File) error { return writeKMSPolicy(f, j.in.Role, pcrs) })
}

// writeKMSPolicy writes a policy that lets a role use a key from an enclave with
// these registers. PCR0 identifies the image.
func writeKMSPolicy(w io.Writer, role string, m eif.Measurements) error {
	registers := map[string]string{}
	for name, value := range map[string]*eif.Digest{"PCR0": &m.PCR0, "PCR3": m.PCR3, "PCR4": m.PCR4, "PCR8": m.PCR8} {
		if value != nil {
			registers["kms:RecipientAttestation:"+name] = value.String()
		}
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(measure.KMSPolicy(role, registers))
}

// ramdisks returns the initramfs in one or two parts: up to the end of the section
// init, and all that follows. Enclaves have no microcode.
func (j *job) ramdisks() ([]sparse.Content, error) {
	parts, err := segment.Initrd("", j.in.Segments, j.in.Starts)
	if err != nil {
		return nil, err
	}
	images, err := j.openParts(parts)
	if err != nil {
		return nil, err
	}
	// The directories of the machine and the modules of the kernel precede the
	// section init.
	first := 0
	for i, d := range j.in.Segments {
		if contract.IsInitComponent(d.Name) {
			first = i + 1
		}
	}
	if first == 0 || first == len(j.in.Segments) {
		return []sparse.Content{sparse.Concat(images...)}, nil
	}
	name := filepath.Join(j.in.Segments[first].Path, segment.FileName)
	at := slices.IndexFunc(parts, func(p segment.Part) bool { return p.File == name })
	return []sparse.Content{sparse.Concat(images[:at]...), sparse.Concat(images[at:]...)}, nil
}

// writePCRs writes measurements in the form of "nitro-cli describe-eif".
func writePCRs(w io.Writer, m eif.Measurements) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(struct {
		Measurements eif.Measurements `json:"Measurements"`
	}{m})
}
