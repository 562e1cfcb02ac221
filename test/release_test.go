package test

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"debug/elf"
	"debug/macho"
	"debug/pe"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"go.yaml.in/yaml/v4"

	"github.com/slipway-build/slipway/internal/testutil/buildkitd"
	"github.com/slipway-build/slipway/internal/testutil/need"
	"github.com/slipway-build/slipway/internal/testutil/stack"
)

var (
	rehearse        = flag.Bool("release", false, "TestRelease makes a release in the stack's registry; takes many minutes")
	releaseTargets  = flag.String("release-targets", "release", "space-separated bake `targets` of TestRelease")
	releasePrograms = flag.String("release-programs", "linux/amd64,linux/arm64,darwin/amd64,darwin/arm64,windows/amd64,windows/arm64", "comma-separated `platforms` of the programs of TestRelease")
	releaseCache    = flag.String("release-cache", "", "`machine` whose packages TestRelease packs if -release-targets is set; default: none")
	releaseExamples = flag.String("release-examples", "*.yml", "`pattern` of the examples of TestRelease")
)

const (
	releaseVersion  = "1.2.3"
	releaseDate     = "20261123"
	releaseTime     = "1764000000"
	releaseRevision = "0123456789abcdef0123456789abcdef01234567"
)

// A rehearsal is a release in the stack's registry.
type rehearsal struct {
	registry string
	files    string // folder with the files to download
	cosign   string
	key      string            // public key of the signatures
	images   map[string]string // digests by repository
	programs string            // folder with the programs for this machine
}

// TestRelease makes a release as the workflow does, except for the key, and
// checks what it has made.
func TestRelease(t *testing.T) {
	if !*rehearse {
		t.Skip("takes many minutes: make release-rehearsal runs it")
	}
	stack.Require(t)
	need.Program(t, "jq", "jq")
	need.Program(t, "lintian", "lintian")
	need.Program(t, "rpm", "rpm")
	dockerHubImages(t) // the examples are locked
	r := newRehearsal(t)
	t.Run("images", r.testImages)
	if *releaseTargets == "release" || *releaseCache != "" {
		t.Run("cache", r.testCache)
	}
	t.Run("checksums", r.testChecksums)
	t.Run("signature", r.testSignature)
	t.Run("disk", r.testDisk)
	t.Run("programs", r.testPrograms)
	t.Run("action", r.testAction)
	t.Run("deb", r.testDeb)
	t.Run("rpm", r.testRPM)
	t.Run("formula", r.testFormula)
	t.Run("reproducible", r.testReproducible)
	t.Run("examples", r.testExamples)
	t.Run("review", r.testReview)
}

func newRehearsal(t *testing.T) *rehearsal {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	r := &rehearsal{registry: stack.Registry + "/rehearsal", files: filepath.Join(root, "out", "release"), cosign: cmp.Or(os.Getenv("COSIGN"), filepath.Join(root, ".stack", "bin", "cosign")),
		key: filepath.Join(dir, "cosign.pub"), images: map[string]string{}, programs: filepath.Join(dir, "bin")}
	release := exec.Command("bash", "-c", `
set -euo pipefail
[[ -x $COSIGN ]] || CGO_ENABLED=0 go build -C hack/cosign -trimpath -ldflags '-s -w' -o "$COSIGN" tool
(cd "$0" && "$COSIGN" generate-key-pair)
hack/release/publish
`, dir)
	release.Dir = root
	release.Env = append(os.Environ(), "COSIGN="+r.cosign, "COSIGN_PASSWORD=", "VERSION="+releaseVersion, "REVISION="+releaseRevision, "COMMIT_TIME="+releaseTime, "DATE="+releaseDate, "REGISTRY="+r.registry,
		"BUILDX_BUILDER="+stack.Builder, "PROGRESS=plain", "TARGETS="+*releaseTargets, "PROGRAMS="+*releasePrograms, "EXAMPLES="+*releaseExamples, "CACHE_MACHINE="+*releaseCache,
		"SIGN=--key "+dir+"/cosign.key --tlog-upload=false --use-signing-config=false", "COSIGN_INSECURE=--allow-http-registry")
	out, err := release.CombinedOutput()
	if logs := stack.Artifacts(t); os.MkdirAll(logs, 0o755) == nil {
		os.WriteFile(filepath.Join(logs, "publish.log"), out, 0o644)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, tail(out, 4000))
	}
	data, err := os.ReadFile(filepath.Join(root, "out", "release.json"))
	if err != nil {
		t.Fatal(err)
	}
	var built map[string]map[string]any
	if err := json.Unmarshal(data, &built); err != nil {
		t.Fatal(err)
	}
	for _, target := range built {
		names, _ := target["image.name"].(string)
		if d, ok := target["containerimage.digest"].(string); ok {
			first, _, _ := strings.Cut(names, ",")
			r.images[strings.TrimSuffix(first, ":"+releaseVersion)] = d
		}
	}
	if len(r.images) < 2 {
		t.Fatalf("the release has the images %v", r.images)
	}
	return r
}

func tail(data []byte, n int) []byte { return data[max(0, len(data)-n):] }

// Every image has its tags, both platforms, labels, SBOM, provenance and a
// signature.
func (r *rehearsal) testImages(t *testing.T) {
	for _, repository := range slices.Sorted(maps.Keys(r.images)) {
		tags := []string{"1.2.3", "1.2", "1", "v1", "v1-" + releaseDate}
		if strings.HasSuffix(repository, "/slipway") {
			tags = []string{"1.2.3", "1.2", "1", "1-" + releaseDate}
		}
		for _, tag := range tags {
			ref, err := name.ParseReference(repository + ":" + tag)
			if err != nil {
				t.Fatal(err)
			}
			got, err := remote.Head(ref)
			if err != nil || got.Digest.String() != r.images[repository] {
				t.Errorf("%s: %v, %v, want %s", ref, got, err, r.images[repository])
			}
		}
		ref := repository + "@" + r.images[repository]
		if err := r.checkIndex(ref, filepath.Base(repository)); err != nil {
			t.Errorf("%s: %v", ref, err)
		}
		out, err := exec.Command(r.cosign, "verify", "--key", r.key, "--insecure-ignore-tlog=true", "--allow-http-registry", ref).CombinedOutput()
		if err != nil {
			t.Errorf("%s: cosign verify: %v\n%s", ref, err, out)
		}
	}
}

// The frontend names a cache that exists, and the packages of the release that it
// has. An empty builder does not pack them again.
func (r *rehearsal) testCache(t *testing.T) {
	ref, err := name.ParseReference(r.registry + "/slipway@" + r.images[r.registry+"/slipway"])
	if err != nil {
		t.Fatal(err)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		image, err := remote.Image(ref, remote.WithPlatform(v1.Platform{OS: "linux", Architecture: arch}))
		if err != nil {
			t.Fatal(err)
		}
		config, err := image.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		env := map[string]string{}
		for _, e := range config.Config.Env {
			key, value, _ := strings.Cut(e, "=")
			env[key] = value
		}
		cache, err := name.NewDigest(env["SLIPWAY_CACHE"])
		if err != nil {
			t.Fatalf("%s: %v in %v", arch, err, config.Config.Env)
		}
		if _, err := remote.Head(cache); err != nil {
			t.Errorf("%s: %s: %v", arch, cache, err)
		}
		for _, want := range []string{"kernel", "init", "runc"} {
			if d := r.images[r.registry+"/"+want]; !strings.Contains(env["SLIPWAY_CACHE_IMAGES"], d) {
				t.Errorf("%s: the cache has no %s of this release, %s: %s", arch, want, d, env["SLIPWAY_CACHE_IMAGES"])
			}
		}
	}
	image := func(name string) string { return r.registry + "/" + name + ":" + releaseVersion }
	dir := t.TempDir()
	write(t, dir, map[string]string{"machine.yml": fmt.Sprintf("# syntax=%s\nkernel: {image: %s}\ninit: [%s, %s]\n", image("slipway"), image("kernel"), image("init"), image("runc"))})
	for arg, want := range map[string]int{"true": 0, "false": 2} {
		packs := 0
		for _, name := range builds(t, fresh(t, buildkitd.Config{}), dir, "--target=kernel+initrd", "--build-arg=RELEASE_CACHE="+arg, "--output=type=cacheonly") {
			if strings.HasPrefix(name, "[init[") {
				packs++
			}
		}
		if packs != want {
			t.Errorf("RELEASE_CACHE=%s: %d init images were packed, want %d", arg, packs, want)
		}
	}
}

// Cosign verifies the signature of a pushed disk, and the statement about it.
func (r *rehearsal) testDisk(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"machine.iso": "disk", "machine.lock.yml": "version: 1\nimages:\n  slipwaybuild/kernel:v1: sha256:" + strings.Repeat("0", 64) + "\n"})
	for _, args := range [][]string{{"ecparam", "-genkey", "-name", "prime256v1", "-out", "key"}, {"ec", "-in", "key", "-pubout", "-out", "key.pub"}} {
		cmd := exec.Command("openssl", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("openssl: %v: %s", err, out)
		}
	}
	out, stderr, code := slipway(t, dir, "push", "--arch", "amd64", "--lock", "machine.lock.yml", "--sign-key", "key", "machine.iso", "oci://"+r.registry+"/disk:v1")
	if code != 0 {
		t.Fatal(stderr)
	}
	ref := strings.TrimPrefix(strings.TrimSpace(out), "oci://")
	for _, args := range [][]string{{"verify"}, {"verify-attestation", "--type", "slsaprovenance1"}} {
		args = append(args, "--key", filepath.Join(dir, "key.pub"), "--insecure-ignore-tlog=true", "--allow-http-registry", ref)
		if out, err := exec.Command(r.cosign, args...).CombinedOutput(); err != nil {
			t.Errorf("cosign %s: %v\n%s", args[0], err, out)
		}
	}
}

func (r *rehearsal) checkIndex(reference, title string) error {
	ref, err := name.ParseReference(reference)
	if err != nil {
		return err
	}
	index, err := remote.Index(ref)
	if err != nil {
		return err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	found := map[string]bool{}
	for _, d := range manifest.Manifests {
		image, err := index.Image(d.Digest)
		if err != nil {
			return err
		}
		if d.Annotations["vnd.docker.reference.type"] == "attestation-manifest" {
			kinds, err := attestationsOf(image)
			if err != nil {
				return err
			}
			if !slices.Equal(kinds, []string{"provenance", "sbom"}) {
				return fmt.Errorf("attestations %q of %s", kinds, d.Annotations["vnd.docker.reference.digest"])
			}
			found["attestation of "+d.Annotations["vnd.docker.reference.digest"]] = true
			continue
		}
		config, err := image.ConfigFile()
		if err != nil {
			return err
		}
		if config.Architecture != d.Platform.Architecture {
			return fmt.Errorf("%s has an image for %s", d.Platform, config.Architecture)
		}
		found[d.Platform.String()], found["image "+d.Digest.String()] = true, true
		labels := config.Config.Labels
		for key, want := range map[string]string{"title": title, "version": releaseVersion, "revision": releaseRevision,
			"source": "https://github.com/slipway-build/slipway", "vendor": "Slipway"} {
			if got := labels["org.opencontainers.image."+key]; got != want {
				return fmt.Errorf("label %s is %q, want %q", key, got, want)
			}
		}
		if len(labels["org.opencontainers.image.description"]) < 10 {
			return fmt.Errorf("description %q", labels["org.opencontainers.image.description"])
		}
	}
	if len(manifest.Manifests) != 4 || !found["linux/amd64"] || !found["linux/arm64"] {
		return fmt.Errorf("the index has %v", found)
	}
	for key := range found {
		if digest, ok := strings.CutPrefix(key, "image "); ok && !found["attestation of "+digest] {
			return fmt.Errorf("no attestations of %s", digest)
		}
	}
	return nil
}

// attestationsOf returns the kinds of in-toto statements in an image of
// attestations. It checks that an SBOM names packages, and provenance its build.
func attestationsOf(image v1.Image) (kinds []string, err error) {
	layers, err := image.Layers()
	if err != nil {
		return nil, err
	}
	for _, layer := range layers {
		blob, err := layer.Uncompressed()
		if err != nil {
			return nil, err
		}
		var statement struct {
			PredicateType string
			Subject       []struct{ Digest map[string]string }
			Predicate     struct {
				Packages        []struct{ Name string }
				BuildDefinition struct{ BuildType string }
				BuildType       string
			}
		}
		err = json.NewDecoder(blob).Decode(&statement)
		blob.Close()
		if err != nil {
			return nil, err
		}
		p := statement.Predicate
		switch {
		case statement.PredicateType == "https://spdx.dev/Document" && len(p.Packages) > 0:
			kinds = append(kinds, "sbom")
		case strings.HasPrefix(statement.PredicateType, "https://slsa.dev/provenance/") && strings.Contains(p.BuildType+p.BuildDefinition.BuildType, "buildkit"):
			kinds = append(kinds, "provenance")
		default:
			return nil, fmt.Errorf("statement %q without contents", statement.PredicateType)
		}
	}
	slices.Sort(kinds)
	return kinds, nil
}

// platforms returns the platforms of the programs.
func platformsOfPrograms() []string { return strings.Split(*releasePrograms, ",") }

func (r *rehearsal) archive(platform string) string {
	suffix := ".tar.gz"
	if strings.HasPrefix(platform, "windows") {
		suffix = ".zip"
	}
	return filepath.Join(r.files, "slipway_"+releaseVersion+"_"+strings.Replace(platform, "/", "_", 1)+suffix)
}

// The checksums are those of all files.
func (r *rehearsal) testChecksums(t *testing.T) {
	list, err := os.ReadFile(filepath.Join(r.files, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	sums := map[string]string{}
	for line := range strings.Lines(string(list)) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		data, err := os.ReadFile(filepath.Join(r.files, name))
		if err != nil || fmt.Sprintf("%x", sha256.Sum256(data)) != sum {
			t.Errorf("%s does not have the digest %s: %v", name, sum, err)
		}
		sums[name] = sum
	}
	for _, p := range platformsOfPrograms() {
		if sums[filepath.Base(r.archive(p))] == "" {
			t.Errorf("no archive for %s in\n%s", p, list)
		}
	}
	entries, err := os.ReadDir(r.files)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Log(e.Name())
		if sums[e.Name()] == "" && !strings.HasPrefix(e.Name(), "SHA256SUMS") {
			t.Errorf("%s has no checksum", e.Name())
		}
	}
}

func (r *rehearsal) testSignature(t *testing.T) {
	verify := func(file string) (string, error) {
		out, err := exec.Command(r.cosign, "verify-blob", "--key", r.key, "--insecure-ignore-tlog=true",
			"--bundle", filepath.Join(r.files, "SHA256SUMS.sigstore.json"), file).CombinedOutput()
		return string(out), err
	}
	if out, err := verify(filepath.Join(r.files, "SHA256SUMS")); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	other := filepath.Join(t.TempDir(), "SHA256SUMS")
	if err := os.WriteFile(other, []byte("changed\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := verify(other); err == nil {
		t.Errorf("the signature is valid for other checksums\n%s", out)
	}
}

// The programs are static, for their platform, and print the version.
func (r *rehearsal) testPrograms(t *testing.T) {
	for _, p := range platformsOfPrograms() {
		dir := t.TempDir()
		unpack := exec.Command("tar", "-xzf", r.archive(p), "-C", dir, "--strip-components", "1")
		program := filepath.Join(dir, "slipway")
		if strings.HasPrefix(p, "windows") {
			unpack = exec.Command("python3", "-m", "zipfile", "-e", r.archive(p), dir)
			program = filepath.Join(dir, strings.TrimSuffix(filepath.Base(r.archive(p)), ".zip"), "slipway.exe")
		}
		if out, err := unpack.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", p, err, out)
		}
		var machine string
		switch system, _, _ := strings.Cut(p, "/"); system {
		case "linux":
			f, err := elf.Open(program)
			if err != nil {
				t.Fatal(err)
			}
			machine = f.Machine.String()
			if slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
				t.Errorf("%s: the program is not static", p)
			}
			f.Close()
		case "darwin":
			f, err := macho.Open(program)
			if err != nil {
				t.Fatal(err)
			}
			machine = f.Cpu.String()
			f.Close()
		case "windows":
			f, err := pe.Open(program)
			if err != nil {
				t.Fatal(err)
			}
			machine = fmt.Sprintf("%#x", f.Machine)
			f.Close()
		}
		want := map[string]string{"linux/amd64": "EM_X86_64", "linux/arm64": "EM_AARCH64", "darwin/amd64": "CpuAmd64", "darwin/arm64": "CpuArm64",
			"windows/amd64": "0x8664", "windows/arm64": "0xaa64"}[p]
		if machine != want {
			t.Errorf("%s: the program is for %s, want %s", p, machine, want)
		}
		if p == "linux/amd64" {
			checkVersion(t, dir)
			for _, file := range []string{"man/slipway-run.1", "man/slipway-publish-aws.1", "completions/slipway.bash", "completions/slipway-publish.zsh", "LICENSE"} {
				if info, err := os.Stat(filepath.Join(dir, file)); err != nil || info.Size() == 0 {
					t.Errorf("%s: %v", file, err)
				}
			}
		}
	}
}

// checkVersion checks that the programs in a folder print the version.
func checkVersion(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{"slipway", "slipway-publish"} {
		out, err := exec.Command(filepath.Join(dir, name), "--version").CombinedOutput()
		if want := name + " version " + releaseVersion + "\n"; string(out) != want {
			t.Errorf("%s: %q, %v, want %q", name, out, err, want)
		}
	}
}

// The action installs the release. Later tests use these programs.
func (r *rehearsal) testAction(t *testing.T) {
	files := http.StripPrefix("/download/v"+releaseVersion, http.FileServer(http.Dir(r.files)))
	server := httptest.NewServer(files)
	defer server.Close()
	cmd := exec.Command(filepath.Join(actionFolder, "install"), releaseVersion, r.programs)
	cmd.Env = append(os.Environ(), "SLIPWAY_RELEASES="+server.URL)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	checkVersion(t, r.programs)
}

func (r *rehearsal) testDeb(t *testing.T) {
	deb := filepath.Join(r.files, "slipway_"+releaseVersion+"-1_amd64.deb")
	if out, err := exec.Command("lintian", "--allow-root", "--fail-on", "error", "--info", deb).CombinedOutput(); err != nil {
		t.Errorf("lintian: %v\n%s", err, out)
	}
	dir := t.TempDir()
	if out, err := exec.Command("dpkg-deb", "--extract", deb, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	checkVersion(t, filepath.Join(dir, "usr", "bin"))
	out, err := exec.Command("man", "--warnings=all", "-l", filepath.Join(dir, "usr/share/man/man1/slipway-build.1.gz")).CombinedOutput()
	if err == nil && !bytes.Contains(out, []byte("--build-arg")) {
		t.Errorf("man page:\n%s", out)
	}
	info, err := exec.Command("dpkg-deb", "--field", deb, "Package", "Version", "Architecture").Output()
	if want := "Package: slipway\nVersion: 1.2.3-1\nArchitecture: amd64\n"; string(info) != want {
		t.Errorf("got %q, %v, want %q", info, err, want)
	}
}

func (r *rehearsal) testRPM(t *testing.T) {
	rpm := filepath.Join(r.files, "slipway-"+releaseVersion+"-1.x86_64.rpm")
	out, err := exec.Command("rpm", "--query", "--package", "--queryformat", "%{NAME} %{VERSION} %{RELEASE} %{ARCH} %{LICENSE}\n[%{FILENAMES} %{FILEMODES:octal}\n]", rpm).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"slipway 1.2.3 1 x86_64 Apache-2.0\n", "/usr/bin/slipway 100755\n", "/usr/bin/slipway-publish 100755\n", "/usr/share/man/man1/slipway-run.1.gz 100644\n"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if out, err := exec.Command("rpm", "--checksig", "--nosignature", rpm).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// The formula has the digests of the archives that it names.
func (r *rehearsal) testFormula(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(r.files, "slipway.rb"))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, match := range regexp.MustCompile(`url "\S*/download/v1\.2\.3/(\S+)"\n\s+sha256 "([0-9a-f]{64})"`).FindAllSubmatch(text, -1) {
		data, err := os.ReadFile(filepath.Join(r.files, string(match[1])))
		if err != nil || fmt.Sprintf("%x", sha256.Sum256(data)) != string(match[2]) {
			t.Errorf("%s: %v, digest %s", match[1], err, match[2])
		}
		found++
	}
	want := 0
	for _, p := range platformsOfPrograms() {
		if !strings.HasPrefix(p, "windows") {
			want++
		}
	}
	if found != want {
		t.Errorf("%d archives, want %d, in\n%s", found, want, text)
	}
}

// The same files come from another machine, without BuildKit.
func (r *rehearsal) testReproducible(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command("go", "run", "./hack/release", "files", "--version", releaseVersion, "--platforms", "linux/amd64", "--out", dir)
	cmd.Dir, cmd.Env = "..", append(os.Environ(), "SOURCE_DATE_EPOCH="+releaseTime)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, tail(out, 4000))
	}
	for _, name := range []string{"slipway_1.2.3_linux_amd64.tar.gz", "slipway_1.2.3-1_amd64.deb", "slipway-1.2.3-1.x86_64.rpm"} {
		sameFile(t, filepath.Join(r.files, name), filepath.Join(dir, name))
	}
}

// unpackExamples unpacks the locked examples.
func (r *rehearsal) unpackExamples(t *testing.T) string {
	dir := t.TempDir()
	archive := filepath.Join(r.files, "slipway_"+releaseVersion+"_examples.tar.gz")
	if out, err := exec.Command("tar", "-xzf", archive, "-C", dir, "--strip-components", "1").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

// The examples name the images of the release and have locks. The frontend of
// the release and the command make the same machine of them, which names the
// release and the lock.
func (r *rehearsal) testExamples(t *testing.T) {
	dir := r.unpackExamples(t)
	files, _ := filepath.Glob(filepath.Join(dir, "*.lock.yml"))
	if len(files) == 0 {
		t.Fatal("no example has a lock")
	}
	for _, lock := range files {
		yml := strings.TrimSuffix(lock, ".lock.yml") + ".yml"
		text, err := os.ReadFile(yml)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(text, []byte("# syntax="+r.registry+"/slipway:1.2.3\n")) || bytes.Contains(text, []byte(": slipwaybuild/")) {
			t.Errorf("%s names other images:\n%s", yml, text)
		}
	}
	yml := files[0][:len(files[0])-len(".lock.yml")] + ".yml"
	release := "files:\n  - path: etc/os-release\n    metadata: os-release\n"
	text, err := os.ReadFile(yml)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(text, []byte("metadata: os-release")) {
		if err := os.WriteFile(yml, append(text, release...), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	lock, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	base := strings.TrimSuffix(filepath.Base(yml), ".yml")
	stack.MustBuildx(t, dir, "-f", yml, "--platform", "linux/amd64", "--target", "tar", "-o", filepath.Join(dir, "image"), ".")
	cmd := exec.Command(filepath.Join(r.programs, "slipway"), "build", "--builder", stack.Builder, "--platform", "linux/amd64", "--format", "tar", "-o", filepath.Join(dir, "command"), yml, dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	sameFile(t, filepath.Join(dir, "image", base+".tar"), filepath.Join(dir, "command", base+".tar"))
	out, err := exec.Command("tar", "-xOf", filepath.Join(dir, "image", base+".tar"), "etc/os-release").Output()
	for _, want := range []string{"VERSION_ID=1.2.3\n", "IMAGE_ID=" + base + "\n", fmt.Sprintf("SLIPWAY_LOCK=sha256:%x\n", sha256.Sum256(lock))} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in /etc/os-release, %v:\n%s", want, err, out)
		}
	}
}

// The example workflow comments what changes in a machine.
func (r *rehearsal) testReview(t *testing.T) {
	text, err := os.ReadFile("../examples/ci/review.yml")
	if err != nil {
		t.Fatal(err)
	}
	var workflow struct {
		Jobs map[string]struct {
			Steps []struct{ Name, Run string }
		}
	}
	if err := yaml.Unmarshal(text, &workflow); err != nil {
		t.Fatal(err)
	}
	examples := r.unpackExamples(t)
	ymls, _ := filepath.Glob(filepath.Join(examples, "*.lock.yml"))
	machine, err := os.ReadFile(strings.TrimSuffix(ymls[0], ".lock.yml") + ".yml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, dir, map[string]string{"origin/aws.yml": string(machine), "bin/gh": "#!/bin/bash\nprintf '%s ' \"$@\" >\"$OUT/args\"\ncp out/comment.md \"$OUT/\"\n"})
	if err := os.Chmod(filepath.Join(dir, "bin", "gh"), 0o755); err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "PATH="+r.programs+":"+dir+"/bin:"+os.Getenv("PATH"), "OUT="+dir, "BASE=main", "NUMBER=7", "GITHUB_REPOSITORY=example/machine",
		"BUILDX_BUILDER="+stack.Builder, "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com")
	run := func(in, script string) {
		t.Helper()
		cmd := exec.Command("bash", "-eo", "pipefail", "-c", script)
		cmd.Dir, cmd.Env = in, env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
	}
	run(dir, `cd origin && git init -q -b main && git add . && git commit -q -m first && cd .. && git clone -q origin checkout
		printf 'files:\n  - {path: etc/added, contents: text}\n' >added.yml
		if grep -q ^files: checkout/aws.yml; then sed -i 's|^files:|&\n  - {path: etc/added, contents: text}|' checkout/aws.yml; else cat added.yml >>checkout/aws.yml; fi`)
	for _, step := range workflow.Jobs["diff"].Steps {
		if step.Run != "" {
			run(filepath.Join(dir, "checkout"), step.Run)
		}
	}
	args, err := os.ReadFile(filepath.Join(dir, "args"))
	if !strings.HasPrefix(string(args), "pr comment 7 --repo example/machine") {
		t.Errorf("gh %s, %v", args, err)
	}
	comment, err := os.ReadFile(filepath.Join(dir, "comment.md"))
	if !bytes.Contains(comment, []byte("etc/added")) {
		t.Errorf("the comment, %v:\n%s", err, comment)
	}
	for lines := bufio.NewScanner(bytes.NewReader(comment)); lines.Scan(); {
		t.Log(lines.Text())
	}
}
