package format

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/exporter/disk/disktest"
	"github.com/slipway-build/slipway/exporter/measure"
	"github.com/slipway-build/slipway/exporter/uki"
	"github.com/slipway-build/slipway/internal/bootkeys"
	"github.com/slipway-build/slipway/internal/testutil/need"
)

// measurable returns the input of a format with the stub of systemd, whose
// measurements are known.
func measurable(t *testing.T, f Format) Input {
	t.Helper()
	const stub = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
	need.File(t, stub, "systemd-boot-efi")
	in := inputOf(t, f)
	program, err := os.ReadFile(stub)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{filepath.Join(in.Loaders, filepath.Base(stub)): program, in.Kernel: disktest.Program(0x8664, 0x400)} {
		if err := os.WriteFile(name, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	in.PCRs = true
	return in
}

// TestPCRs checks that each format with the option PCRs writes what package measure
// predicts for its output, unsigned, signed, and with room for a signature, and
// that the other files are the same without the option.
func TestPCRs(t *testing.T) {
	keys, err := bootkeys.New("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	signer, err := uki.NewSigner(keys.DB.Certificate, keys.DB.Private)
	if err != nil {
		t.Fatal(err)
	}
	trusted := measure.KeysOf(keys.Variables())
	formats := 0
	for _, f := range All() {
		if !f.Options.Has(PCRs) {
			continue
		}
		formats++
		for name, test := range map[string]struct {
			signer *uki.Signer
			keys   *measure.Keys
		}{"unsigned": {}, "signed": {signer, trusted}, "signed later": {new(uki.Signer), trusted}, "signed, other firmware": {signer, nil}} {
			t.Run(f.Name+" "+name, func(t *testing.T) {
				in := measurable(t, f)
				in.Signer, in.Keys = test.signer, test.keys
				files, err := Write(f.Name, in, t.TempDir(), func(w string) { t.Error(w) })
				if err != nil {
					t.Fatal(err)
				}
				if last := files[len(files)-1]; filepath.Base(last) != "m.pcrs.json" {
					t.Fatalf("files %q", files)
				}
				got, err := os.ReadFile(files[len(files)-1])
				if err != nil {
					t.Fatal(err)
				}
				output, err := os.Open(files[0])
				if err != nil {
					t.Fatal(err)
				}
				defer output.Close()
				info, err := output.Stat()
				if err != nil {
					t.Fatal(err)
				}
				want, err := measure.File(output, info.Size(), test.keys)
				if err != nil {
					t.Fatal(err)
				}
				var text bytes.Buffer
				if err := want.WriteJSON(&text); err != nil {
					t.Fatal(err)
				}
				if string(got) != text.String() {
					t.Errorf("%s, want %s", got, text.String())
				}
			})
		}
	}
	if formats != 5 {
		t.Errorf("%d formats have the option", formats)
	}
}

func TestPCRsErrors(t *testing.T) {
	f, _ := Lookup("raw-efi")
	newKeys := func() (*uki.Signer, *measure.Keys) {
		keys, err := bootkeys.New("test", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		signer, err := uki.NewSigner(keys.DB.Certificate, keys.DB.Private)
		if err != nil {
			t.Fatal(err)
		}
		return signer, measure.KeysOf(keys.Variables())
	}
	signer, trusted := newKeys()
	_, other := newKeys()
	for want, change := range map[string]func(*Input){
		"firmware with Secure Boot does not start an unsigned machine": func(in *Input) { in.Keys = trusted },
		"the keys of the firmware are not those of the signer":         func(in *Input) { in.Signer, in.Keys = signer, other },
	} {
		in := measurable(t, f)
		change(&in)
		if _, err := Write(f.Name, in, t.TempDir(), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
