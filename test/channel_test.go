package test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/stack"
	"github.com/slipway-build/slipway/publisher/ami"
	"github.com/slipway-build/slipway/publisher/artifact"
)

// TestChannel builds a machine into a registry, with attestations and a
// signature, publishes it from there without a
// file, and then proves from the YAML and its lock alone what the AMI contains.
func TestChannel(t *testing.T) {
	stack.Require(t)
	example, err := os.ReadFile("../examples/minimal.yml")
	if err != nil {
		t.Fatal(err)
	}
	dir := machineYAML(t, string(example))
	yaml := filepath.Join(dir, "machine.yml")
	if _, stderr, code := slipway(t, dir, "lock", "--platform", "linux/amd64", "machine.yml"); code != 0 {
		t.Fatal(stderr)
	}
	build := []string{"--platform", "linux/amd64", "--size", "100M"}
	tag := "oci://" + stack.Registry + "/test/channel:v1"
	for _, args := range [][]string{{"ecparam", "-genkey", "-name", "prime256v1", "-out", "key"}, {"ec", "-in", "key", "-pubout", "-out", "key.pub"}} {
		cmd := exec.Command("openssl", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("openssl: %v: %s", err, out)
		}
	}
	args := append([]string{"build", "--format", "raw", "-o", "out", "--sbom", "--provenance=mode=min", "--push", tag, "--sign-key", "key"}, build...)
	out, stderr, code := slipway(t, dir, append(args, "machine.yml")...)
	if code != 0 {
		t.Fatal(stderr)
	}
	lines := strings.Fields(out)
	reference := lines[len(lines)-1]
	if !strings.HasPrefix(reference, tag+"@sha256:") {
		t.Fatalf("build --push prints %q", out)
	}
	if out, stderr, code := slipway(t, dir, "verify", "--key", "key.pub", tag); code != 0 || strings.TrimSpace(out) != reference {
		t.Errorf("verify: %s%s, want %s", out, stderr, reference)
	}
	discover := exec.Command(stack.File(t, "oras"), "discover", "--plain-http", strings.TrimPrefix(reference, "oci://"))
	referrers, err := discover.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{artifact.TypeInToto, artifact.TypeSignature, artifact.TypeEnvelope, "application/vnd.slipway.measurements.v1+json"} {
		if !strings.Contains(string(referrers), kind) {
			t.Errorf("no referrer is a %s: %s", kind, referrers)
		}
	}
	disk := filepath.Join(dir, "out", "machine.raw")
	if out, stderr, code := slipway(t, dir, "pull", "-o", "pulled", reference); code != 0 || !strings.HasPrefix(out, filepath.Join("pulled", "machine.raw")+"\t") {
		t.Errorf("pull: %s%s", out, stderr)
	}
	if err := exec.Command("cmp", disk, filepath.Join(dir, "pulled", "machine.raw")).Run(); err != nil {
		t.Errorf("the pulled disk differs: %v", err)
	}
	if out, stderr, code := slipway(t, dir, "inspect", reference); code != 0 || !strings.Contains(out, "getty") {
		t.Errorf("inspect: %s%s", out, stderr)
	}
	if out, stderr, code := slipway(t, dir, "diff", reference, disk); code != 0 {
		t.Errorf("diff with the disk that was pushed: exit %d: %s%s", code, out, stderr)
	}
	if out, stderr, code := slipway(t, dir, "push", "--lock", "machine.lock.yml", disk, tag); code != 0 || strings.TrimSpace(out) != reference {
		t.Errorf("push of the same disk: %s%s, want %s", out, stderr, reference)
	}

	verifyRebuilt(t, dir, reference, disk)

	a := newAccount(t)
	image := a.publish(t, reference, "--name=channel")
	want, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	checkSnapshot(t, a, image, want)

	program, err := command()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	verify := func() (v ami.Verification, code int) {
		t.Helper()
		args := append([]string{"aws", "verify", "--json", image.Image, "--rebuild", yaml, "--"}, build...)
		cmd := exec.Command(a.program, args...)
		cmd.Dir = dir
		cmd.Env = append(append(os.Environ(), a.Env()...), "BUILDX_BUILDER="+stack.Builder,
			"PATH="+filepath.Dir(program)+":"+os.Getenv("PATH")) // where it finds slipway
		var log bytes.Buffer
		cmd.Stderr = &log
		out, _ := cmd.Output() // the exit status says what failed
		if err := json.Unmarshal(out, &v); err != nil {
			t.Fatalf("verify --rebuild: %v: %s%s", err, out, log.String())
		}
		return v, cmd.ProcessState.ExitCode()
	}
	if v, code := verify(); code != 0 || !v.Match || v.Image != image.Image {
		t.Errorf("verify --rebuild: exit %d, %+v", code, v)
	}
	changed := strings.Replace(string(example), `"console=ttyS0,115200n8"`, `"console=ttyS0,115200n8 quiet"`, 1)
	if err := os.WriteFile(yaml, []byte(changed), 0o644); err != nil {
		t.Fatal(err)
	}
	inPartition := func(d ami.BlockDifference) bool { return d.Partition != "" }
	if v, code := verify(); code != 1 || v.Match || !slices.ContainsFunc(v.Differences, inPartition) {
		t.Errorf("verify --rebuild of a changed machine: exit %d, %+v", code, v)
	}
}

// checkSnapshot checks that the snapshot of an image has the content of a disk.
func checkSnapshot(t *testing.T, a account, image *ami.Image, disk []byte) {
	t.Helper()
	published, err := os.ReadFile(a.save(t, image))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(published, disk) {
		t.Errorf("the snapshot of %s differs from the disk", image.Architecture)
	}
}

// TestChannelBoots pushes a machine for two architectures, as disks and unified
// kernel images, to one tag, deletes its files, and uses it from the registry: it
// publishes both disks, runs both, and boots it over HTTP.
func TestChannelBoots(t *testing.T) {
	if !*bootAll {
		t.Skip("boots four machines: run make test-boot")
	}
	stack.Require(t)
	dir := machineYAML(t, formatMachine("console=ttyAMA0 console=ttyS0 panic=-1"))
	tag := "oci://" + stack.Registry + "/test/channel-boots:v1"
	push := []string{"push"}
	disks := map[string][]byte{}
	for architecture, images := range formatImages(t) {
		out := filepath.Join("out", "linux_"+architecture)
		args := append([]string{"build", "--platform=linux/" + architecture, "--format=raw,uki", "-o", out}, images...)
		if _, stderr, code := slipway(t, dir, append(args, "machine.yml")...); code != 0 {
			t.Fatal(stderr)
		}
		disk := filepath.Join(out, "machine.raw")
		push = append(push, disk, filepath.Join(out, "machine.efi"))
		content, err := os.ReadFile(filepath.Join(dir, disk))
		if err != nil {
			t.Fatal(err)
		}
		disks[architecture] = content
	}
	stdout, stderr, code := slipway(t, dir, append(push, tag)...)
	if code != 0 {
		t.Fatal(stderr)
	}
	reference := strings.TrimSpace(stdout)
	if err := os.RemoveAll(filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}

	a := newAccount(t)
	home(t) // after the Go builds, which need the user's cache
	for architecture, name := range map[string]string{"amd64": "x86_64", "arm64": "arm64"} {
		t.Run(architecture, func(t *testing.T) {
			image := a.publish(t, reference, "--name=channel-"+architecture, "--arch="+name)
			if image.Architecture != name {
				t.Errorf("the AMI is %+v", image)
			}
			checkSnapshot(t, a, image, disks[architecture])
			console, stderr, code := slipway(t, dir, "run", "--accel=tcg", "--progress=plain", "--platform=linux/"+architecture, reference)
			if code != 0 {
				t.Fatalf("run: exit %d\n%s\n%s", code, console, stderr)
			}
			reportIn(t, console)
		})
	}
	for _, c := range []struct{ name, format, path string }{
		{"UKI over HTTP", "uki", "machine.efi"},
		{"disk over HTTP", "raw", "machine.raw"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bootOverHTTP(t, startServe(t, dir, "--arch=amd64", "--format="+c.format, reference)+c.path)
		})
	}
}

// verifyRebuilt checks that slipway verify finds out whether a disk is what a YAML and
// its lock build.
func verifyRebuilt(t *testing.T, dir, reference, disk string) {
	t.Helper()
	verify := func(name string, flags ...string) (string, string, int) {
		args := append([]string{"verify", "--lock", "machine.lock.yml"}, flags...)
		return slipway(t, dir, append(args, name, "--", "--size", "100M")...)
	}
	sum, err := exec.Command("sha256sum", disk).Output()
	if err != nil {
		t.Fatal(err)
	}
	hex, _, _ := strings.Cut(string(sum), " ")
	out, stderr, code := verify(reference, "--key", "key.pub", "--statement", "machine.intoto.json")
	if code != 0 || !strings.Contains(out, reference+" is what machine.yml and machine.lock.yml build: sha256:"+hex) {
		t.Errorf("verify: exit %d: %s%s", code, out, stderr)
	}
	statement, err := os.ReadFile(filepath.Join(dir, "machine.intoto.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{hex, "pkg:docker/slipwaybuild/kernel@v1?", `"machine.lock.yml"`, `"name": "machine.pcrs.json"`} {
		if !strings.Contains(string(statement), want) {
			t.Errorf("the statement lacks %s:\n%s", want, statement)
		}
	}

	data, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	changed := filepath.Join(dir, "changed.raw")
	at := bytes.Index(data, []byte(`options "console=`))
	copy(data[at:], `options "init=/sh`)
	if err := os.WriteFile(changed, data, 0o600); err != nil {
		t.Fatal(err)
	}
	out, _, code = verify(changed, "--statement", "changed.json")
	if _, err := os.Stat(filepath.Join(dir, "changed.json")); err == nil || code != 1 || !strings.Contains(out, "command line: ") || !strings.Contains(out, "init=/sh") ||
		!strings.Contains(out, "the first byte that differs is ") {
		t.Errorf("verify of a changed command line: exit %d: %s", code, out)
	}

	yaml := filepath.Join(dir, "machine.yml")
	before, err := os.ReadFile(yaml)
	if err != nil {
		t.Fatal(err)
	}
	defer os.WriteFile(yaml, before, 0o600)
	if err := os.WriteFile(yaml, append(before, "files:\n  - path: etc/verified\n    contents: hello\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, stderr, code = verify(disk); code != 1 || !strings.Contains(out, "  base: etc/verified (added)") {
		t.Errorf("verify against another YAML: exit %d: %s%s", code, out, stderr)
	}
}
