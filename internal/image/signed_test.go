package image

import (
	"testing"

	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/exporter/uki"
	"github.com/slipway-build/slipway/internal/testutil/signkey"
)

// Under UEFI, every signed format boots a unified kernel image with a valid
// signature. The machine in it is the same. With room for a signature, there is
// none yet.
func TestSignedFormats(t *testing.T) {
	key, certificate := signkey.PEM(t, "test")
	signer, err := uki.ParseSigner(key, certificate)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range format.All() {
		if f.CheckSign("amd64") != nil || f.Container || f.Options.Has(format.Enclave) { // see TestSignature of package eif
			continue
		}
		t.Run(f.Name, func(t *testing.T) {
			for _, s := range []*uki.Signer{signer, new(uki.Signer)} {
				in := machine(t, f)
				in.Signer = s
				names, err := format.Write(f.Name, in, t.TempDir(), func(string) {})
				if err != nil {
					t.Fatal(err)
				}
				i, err := Open(names[0])
				if err != nil {
					t.Fatal(err)
				}
				defer i.Close()
				if len(i.Warnings) > 0 {
					t.Errorf("warnings %q", i.Warnings)
				}
				found := false
				for _, l := range i.Loaders {
					if l.Firmware != "UEFI" {
						continue
					}
					found = true
					if l.Name != "unified kernel image" || l.Signed != (s.Key != nil) || s.Key != nil && (len(l.Signers) != 1 || l.Signers[0].Subject != "CN=test") {
						t.Errorf("loader %+v", l)
					}
				}
				if !found {
					t.Errorf("no loader for UEFI in %+v", i.Loaders)
				}
				if i.Kernel == nil || i.Kernel.Release != release {
					t.Errorf("kernel %+v", i.Kernel)
				}
				for _, e := range segments[0] {
					if e.Type == "file" && content(t, i, e.Path) != string(e.Contents) {
						t.Errorf("%s has another content", e.Path)
					}
				}
			}
		})
	}
	if f, _ := format.Lookup("kernel+initrd"); f.CheckSign("amd64") == nil {
		t.Error("kernel+initrd can be signed")
	}
}
