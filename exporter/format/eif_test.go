package format

import (
	"encoding/json"
	"io"
	"os"
	"testing"

	"github.com/slipway-build/slipway/exporter/eif"
	"github.com/slipway-build/slipway/exporter/segment"
)

// TestEIF checks that the ramdisks of an enclave image are the initramfs of
// kernel+initrd without microcode, split after the section init, and that the
// file beside it has what the image measures.
func TestEIF(t *testing.T) {
	for name, test := range map[string]struct {
		components []string
		ramdisks   int
	}{
		"init only":     {[]string{"init[0]"}, 1},
		"init and more": {[]string{"init[0]", "init[1]", "services.web", "files"}, 2},
		"no init":       {[]string{"services.web"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			in := input(t, segment.CPIO)
			in.Ucode = ""
			dir := in.Segments[0].Path
			in.Segments = nil
			for _, c := range test.components {
				in.Segments = append(in.Segments, segment.Dir{Name: c, Path: dir})
			}
			write := func(format string) []string {
				t.Helper()
				files, err := Write(format, in, t.TempDir(), func(w string) { t.Error(w) })
				if err != nil {
					t.Fatal(err)
				}
				return files
			}
			files := write("eif")
			f, err := os.Open(files[0])
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			image, pcrs, err := eif.Read(f, info.Size())
			if err != nil {
				t.Fatal(err)
			}
			var ramdisks string
			for _, r := range image.Ramdisks {
				data, err := io.ReadAll(r.Reader())
				if err != nil {
					t.Fatal(err)
				}
				ramdisks += string(data)
			}
			initrd, err := os.ReadFile(write("kernel+initrd")[1])
			if err != nil {
				t.Fatal(err)
			}
			if ramdisks != string(initrd) || len(image.Ramdisks) != test.ramdisks {
				t.Errorf("%d ramdisks with %d bytes; want %d with the %d bytes of the initramfs", len(image.Ramdisks), len(ramdisks), test.ramdisks, len(initrd))
			}

			text, err := os.ReadFile(files[1])
			if err != nil {
				t.Fatal(err)
			}
			var written struct{ Measurements map[string]string }
			if err := json.Unmarshal(text, &written); err != nil {
				t.Fatal(err)
			}
			for name, want := range map[string]eif.Digest{"PCR0": pcrs.PCR0, "PCR1": pcrs.PCR1, "PCR2": pcrs.PCR2} {
				if got := written.Measurements[name]; got != want.String() {
					t.Errorf("%s is %s, and the image measures %s", name, got, want)
				}
			}
		})
	}
}
