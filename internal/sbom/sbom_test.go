package sbom

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/golden"
	"github.com/slipway-build/slipway/internal/testutil/stack"
)

// image writes a root filesystem.
func image(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const (
	debian = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n"
	status = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nMulti-Arch: same\nVersion: 2.36-9+deb12u10\n" +
		"Description: GNU C Library\n Contains the standard libraries.\n .\n More.\n\n" +
		"Package: removed\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n\n"
	sshd = "Package: openssh-server\nArchitecture: amd64\nVersion: 1:9.2p1-2\n"
	apk  = "C:Q1abc=\nP:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\no:musl\nF:lib\nR:ld-musl-x86_64.so.1\n\nC:Q1def=\nP:busybox\nV:1.36.1-r29\nA:x86_64\n\n"
)

func TestScan(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		want  []string
	}{
		{"nothing", map[string]string{"etc/motd": "hello"}, nil},
		{"dpkg", map[string]string{"etc/os-release": debian, "var/lib/dpkg/status": status, "var/lib/dpkg/status.d/openssh-server": sshd, "var/lib/dpkg/status.d/openssh-server.md5sums": "0 a\n"},
			[]string{"pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian-12", "pkg:deb/debian/openssh-server@1:9.2p1-2?arch=amd64&distro=debian-12"}},
		{"apk", map[string]string{"usr/lib/os-release": "ID=alpine\nVERSION_ID=3.21.3\n", "lib/apk/db/installed": apk},
			[]string{"pkg:apk/alpine/busybox@1.36.1-r29?arch=x86_64&distro=alpine-3.21.3", "pkg:apk/alpine/musl@1.2.5-r0?arch=x86_64&distro=alpine-3.21.3"}},
		{"dpkg without a release", map[string]string{"var/lib/dpkg/status": status}, []string{"pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			packages, err := Scan(image(t, c.files))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range packages {
				got = append(got, p.URL)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestScanGo(t *testing.T) {
	dir := image(t, nil)
	if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "program"), "../../cmd/slipway-sbom").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	packages, err := Scan(dir)
	if err != nil {
		t.Fatal(err)
	}
	found := func(url string) bool {
		return slices.ContainsFunc(packages, func(p Package) bool { return strings.HasPrefix(p.URL, url) && p.Source == "/program" })
	}
	for _, url := range []string{"pkg:golang/stdlib@1.", "pkg:golang/github.com/spdx/tools-golang@v0."} {
		if !found(url) {
			t.Errorf("found no %s among %v", url, packages)
		}
	}
}

// A list without the packages of an rpm database would be wrong.
func TestScanRPM(t *testing.T) {
	_, err := Scan(image(t, map[string]string{"var/lib/rpm/rpmdb.sqlite": ""}))
	if err == nil || !strings.Contains(err.Error(), "generator=IMAGE") {
		t.Errorf("got %v", err)
	}
}

// The scanner does not follow symbolic links out of the image.
func TestScanLinks(t *testing.T) {
	outside := image(t, map[string]string{"status": status})
	dir := image(t, map[string]string{"var/lib/dpkg/x": ""})
	if err := os.Symlink(filepath.Join(outside, "status"), filepath.Join(dir, "var/lib/dpkg/status")); err != nil {
		t.Fatal(err)
	}
	packages, err := Scan(dir)
	if err != nil || len(packages) > 0 {
		t.Errorf("got %v, %v", packages, err)
	}
}

// foreign is the output of another scanner: with files, relationships and an
// analyzed package.
const foreign = `{"_type": "https://in-toto.io/Statement/v0.1", "predicateType": "https://spdx.dev/Document", "predicate": {
	"spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": "scan", "documentNamespace": "https://example.com/scan",
	"creationInfo": {"creators": ["Tool: other"], "created": "2024-01-01T00:00:00Z"},
	"packages": [
		{"SPDXID": "SPDXRef-b", "name": "b", "versionInfo": "2", "downloadLocation": "NOASSERTION", "filesAnalyzed": true, "packageVerificationCode": {"packageVerificationCodeValue": "0000000000000000000000000000000000000000"}},
		{"SPDXID": "SPDXRef-a", "name": "a", "versionInfo": "1", "downloadLocation": "NOASSERTION", "filesAnalyzed": false}],
	"files": [{"SPDXID": "SPDXRef-f", "fileName": "./f", "checksums": [{"algorithm": "SHA1", "checksumValue": "0000000000000000000000000000000000000000"}]}],
	"relationships": [
		{"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": "SPDXRef-a"},
		{"spdxElementId": "SPDXRef-b", "relationshipType": "CONTAINS", "relatedSpdxElement": "SPDXRef-f"},
		{"spdxElementId": "SPDXRef-a", "relationshipType": "DEPENDS_ON", "relatedSpdxElement": "SPDXRef-b"}]}}`

func machine(t *testing.T) Machine {
	t.Helper()
	packages, err := Scan(image(t, map[string]string{"etc/os-release": debian, "var/lib/dpkg/status": status, "var/lib/dpkg/status.d/openssh-server": sshd}))
	if err != nil {
		t.Fatal(err)
	}
	own, err := Statement(packages, 0)
	if err != nil {
		t.Fatal(err)
	}
	digest := "sha256:" + strings.Repeat("5", 64)
	return Machine{Name: "aws", Platform: "linux/amd64", Epoch: 1700000000, Components: []Component{
		{Name: "init[0]", Image: "slipwaybuild/init:v1", Digest: digest, URL: ImageURL("docker.io/slipwaybuild/init", "v1", digest), Scan: image(t, map[string]string{"x.spdx.json": foreign})},
		{Name: "services.sshd", Image: "@pkg:sshd", Scan: image(t, map[string]string{"sbom.spdx.json": string(own)})},
		{Name: "volumes.a_b", Image: "slipwaybuild/data", Digest: digest},
		{Name: "volumes.a-b", Image: "slipwaybuild/data", Digest: digest},
	}}
}

func TestDocument(t *testing.T) {
	got, err := machine(t).Document()
	if err != nil {
		t.Fatal(err)
	}
	golden.Equal(t, "testdata/machine.spdx.json", got)
	again, err := machine(t).Document()
	if err != nil || !bytes.Equal(again, got) {
		t.Error("the document is not reproducible")
	}
	other := machine(t)
	other.Epoch++
	later, err := other.Document()
	if err != nil {
		t.Fatal(err)
	}
	if namespace(t, later) == namespace(t, got) {
		t.Error("two documents have one namespace")
	}
}

func namespace(t *testing.T, document []byte) string {
	t.Helper()
	var d struct{ DocumentNamespace string }
	if err := json.Unmarshal(document, &d); err != nil || d.DocumentNamespace == "" {
		t.Fatalf("no namespace: %v", err)
	}
	return d.DocumentNamespace
}

// SPDX's own validator accepts the document.
func TestValid(t *testing.T) {
	validator := stack.File(t, "spdx", "bin", "pyspdxtools")
	out, err := exec.Command(validator, "--infile", "testdata/machine.spdx.json").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	broken := filepath.Join(t.TempDir(), "broken.spdx.json")
	data, err := os.ReadFile("testdata/machine.spdx.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(broken, bytes.Replace(data, []byte(`"SPDXID": "SPDXRef-Machine"`), []byte(`"SPDXID": "Machine"`), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command(validator, "--infile", broken).Run(); err == nil {
		t.Error("the validator accepts an invalid document")
	}
}

func TestNoDocument(t *testing.T) {
	m := Machine{Name: "aws", Components: []Component{{Name: "init[0]", Image: "a", Scan: image(t, map[string]string{"x.json": `{"predicateType": "other"}`})}}}
	if _, err := m.Document(); err == nil || !strings.Contains(err.Error(), "init[0]: the scanner wrote no SPDX document") {
		t.Errorf("got %v", err)
	}
}
