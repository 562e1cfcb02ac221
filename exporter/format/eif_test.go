package format

import (
	"encoding/json"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-build/slipway/exporter/eif"
	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/exporter/sparse"
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
			image, pcrs := readEIF(t, files[0])
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
			want := map[string]string{"PCR0": pcrs.PCR0.String(), "PCR1": pcrs.PCR1.String(), "PCR2": pcrs.PCR2.String()}
			if diff := cmp.Diff(want, registers(t, text)); diff != "" {
				t.Errorf("the registers differ from what the image measures (-image +file):\n%s", diff)
			}
		})
	}
}

var judge = flag.String("eif", "", "the `program` that hack/eif builds; TestEIFLibrary runs it")

// TestEIFLibrary checks with AWS's own library that it reads an enclave image and
// measures the same, and that it measures the same when it builds an image from
// the same parts.
func TestEIFLibrary(t *testing.T) {
	if *judge == "" {
		t.Skip("no -eif: make test-boot builds the program")
	}
	in := input(t, segment.CPIO)
	in.Segments = []segment.Dir{{Name: "init[0]", Path: in.Segments[0].Path}, {Name: "services.web", Path: in.Segments[0].Path}}
	files, err := Write("eif", in, t.TempDir(), func(w string) { t.Error(w) })
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(files[1])
	if err != nil {
		t.Fatal(err)
	}
	want := registers(t, text)
	measure := func(args ...string) {
		t.Helper()
		out, err := exec.Command(*judge, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		if diff := cmp.Diff(want, registers(t, out)); diff != "" {
			t.Errorf("%s measures differently (-slipway +library):\n%s", args[0], diff)
		}
	}
	measure("describe", files[0])

	image, _ := readEIF(t, files[0])
	dir := t.TempDir()
	save := func(name string, c sparse.Content) string {
		t.Helper()
		data, err := io.ReadAll(c.Reader())
		if err != nil {
			t.Fatal(err)
		}
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	measure("build", filepath.Join(dir, "library.eif"), save("kernel", image.Kernel), image.Cmdline, save("1", image.Ramdisks[0]), save("2", image.Ramdisks[1]))
}

// readEIF reads an enclave image, which stays open until the test ends.
func readEIF(t *testing.T, name string) (*eif.Image, eif.Measurements) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	image, pcrs, err := eif.Read(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	return image, pcrs
}

// registers returns the registers 0 to 2 of a file of measurements.
func registers(t *testing.T, text []byte) map[string]string {
	t.Helper()
	var file struct{ Measurements map[string]string }
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	values := map[string]string{}
	for _, name := range []string{"PCR0", "PCR1", "PCR2"} {
		if values[name] = file.Measurements[name]; values[name] == "" {
			t.Errorf("no %s in %s", name, text)
		}
	}
	return values
}
