package format

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-build/slipway/exporter/eif"
	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/internal/testutil/eifjudge"
)

// TestEIF checks that the ramdisks of an enclave image are the initramfs of
// kernel+initrd without microcode, split after the section init, and that the
// file beside it has what the image measures.
func TestEIF(t *testing.T) {
	for name, test := range map[string]struct {
		components []string
		ramdisks   int
	}{
		"init only":       {[]string{"init[0]"}, 1},
		"a whole machine": {[]string{"directories", "kernel", "init[0]", "init[1]", "services.web", "configuration"}, 2},
		"init at the end": {[]string{"directories", "init[0]"}, 1},
		"init and more":   {[]string{"init[0]", "init[1]", "services.web", "files"}, 2},
		"no init":         {[]string{"services.web"}, 1},
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
			image, pcrs := eifjudge.Read(t, files[0])
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
			if diff := cmp.Diff(want, eifjudge.Registers(t, text)); diff != "" {
				t.Errorf("the registers differ from what the image measures (-image +file):\n%s", diff)
			}
		})
	}
}

// TestEIFLibrary checks with AWS's own library that it reads an enclave image and
// measures the same, and that it measures the same when it builds an image from
// the same parts.
func TestEIFLibrary(t *testing.T) {
	eifjudge.Require(t)
	in := input(t, segment.CPIO)
	in.Segments = []segment.Dir{{Name: "init[0]", Path: in.Segments[0].Path}, {Name: "services.web", Path: in.Segments[0].Path}}
	files, want := writeEIF(t, in)
	measure := func(args ...string) {
		t.Helper()
		if diff := cmp.Diff(want, eifjudge.Measure(t, args...)); diff != "" {
			t.Errorf("%s measures differently (-slipway +library):\n%s", args[0], diff)
		}
	}
	measure("describe", files[0])

	image, _ := eifjudge.Read(t, files[0])
	dir := t.TempDir()
	key, certificate := filepath.Join(dir, "key"), filepath.Join(dir, "certificate")
	for _, args := range [][]string{
		{"ecparam", "-name", "secp384r1", "-genkey", "-out", key},
		{"req", "-new", "-x509", "-key", key, "-subj", "/CN=enclaves", "-days", "30", "-out", certificate},
	} {
		if out, err := exec.Command("openssl", args...).CombinedOutput(); err != nil {
			t.Fatalf("openssl %q: %v\n%s", args, err, out)
		}
	}
	parts := eifjudge.Parts(t, image)
	measure(append([]string{"build", filepath.Join(dir, "library.eif")}, parts...)...)

	// The library verifies a signature of Slipway, and Slipway one of the library.
	in.EnclaveSigner = parseSigner(t, key, certificate)
	files, want = writeEIF(t, in)
	if want["PCR8"] == "" {
		t.Errorf("no PCR8 in %v", want)
	}
	measure("describe", files[0])
	library := filepath.Join(dir, "signed.eif")
	measure(append([]string{"sign", certificate, key, library}, parts...)...)
	if _, pcrs := eifjudge.Read(t, library); pcrs.PCR8 == nil || pcrs.PCR8.String() != want["PCR8"] {
		t.Errorf("Slipway measures PCR8 %v in the library's image, want %s", pcrs.PCR8, want["PCR8"])
	}
}

// parseSigner reads a key and its certificate.
func parseSigner(t *testing.T, key, certificate string) *eif.Signer {
	t.Helper()
	k, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := os.ReadFile(certificate)
	if err != nil {
		t.Fatal(err)
	}
	s, err := eif.ParseSigner(k, c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestEIFParent checks the registers that the role and the instance of the parent
// determine, and the policy for a key. The values are those of the user guide's
// Python script.
func TestEIFParent(t *testing.T) {
	in := input(t, segment.CPIO)
	in.Role, in.Instance = "arn:aws:iam::123456789012:role/enclaves", "i-0123456789abcdef0"
	files, got := writeEIF(t, in)
	for name, want := range map[string]string{
		"PCR3": "f6351dd5613336bc55fd815db3fc6fd94e8236bbbe0055f3016e92fa631bc806386dfd5741f78234d34c8deaaa0cef87",
		"PCR4": "a4b4bde81245b6df562b8c378e4d906b2f3e7ee78ade4800a11da06d13ff65c08d23665dd0703f229349865255d4f52f",
	} {
		if got[name] != want {
			t.Errorf("%s is %s, want %s", name, got[name], want)
		}
	}
	policy, err := os.ReadFile(files[2])
	if err != nil {
		t.Fatal(err)
	}
	var statements struct {
		Statement []struct {
			Principal map[string]string
			Condition map[string]map[string]string
		}
	}
	if err := json.Unmarshal(policy, &statements); err != nil || len(statements.Statement) != 1 {
		t.Fatalf("%v in %s", err, policy)
	}
	s := statements.Statement[0]
	want := map[string]string{}
	for _, name := range []string{"PCR0", "PCR3", "PCR4"} {
		want["kms:RecipientAttestation:"+name] = got[name]
	}
	if diff := cmp.Diff(want, s.Condition["StringEqualsIgnoreCase"]); diff != "" || s.Principal["AWS"] != in.Role {
		t.Errorf("the policy is %s (-want +got):\n%s", policy, diff)
	}
}

// writeEIF returns the paths of an enclave image and of the files beside it, and its
// registers.
func writeEIF(t *testing.T, in Input) ([]string, map[string]string) {
	t.Helper()
	files, err := Write("eif", in, t.TempDir(), func(w string) { t.Error(w) })
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(files[1])
	if err != nil {
		t.Fatal(err)
	}
	return files, eifjudge.Registers(t, text)
}
