package test

import (
	"bytes"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/stack"
)

// A secret's bytes are in the machine, but neither in the exported cache nor in
// the metadata of the build.
func TestSecret(t *testing.T) {
	stack.Require(t)
	const secret, public = "kept-to-itself-5fa3", "for-everyone-81c0"
	dir := machineYAML(t, "files:\n  - path: etc/secret\n    secret: token\n  - path: etc/public\n    source: public.txt\n")
	write(t, dir, map[string]string{"public.txt": public, "token.txt": secret})
	cache := filepath.Join(t.TempDir(), "cache")
	_, stderr, err := stack.Buildx(dir, "--progress=plain", "-f", "machine.yml", "--target=tar", "-o", "out",
		"--secret=id=token,src=token.txt", "--no-cache", "--metadata-file=metadata.json", "--provenance=mode=max",
		"--cache-to=type=local,mode=max,compression=uncompressed,force-compression=true,dest="+cache, ".")
	if err != nil {
		t.Fatal(stderr)
	}
	if got := tree(t, filepath.Join(dir, "out", "machine.tar"))["etc/secret"]; got != secret {
		t.Errorf("the machine has %q", got)
	}
	checkLeaks(t, []string{cache, filepath.Join(dir, "metadata.json")}, []byte(public), []byte(secret))

	_, stderr, err = stack.Buildx(dir, "--progress=plain", "-f", "machine.yml", "--target=tar", "--no-cache", "-o", "out2", ".")
	if err == nil || !strings.Contains(stderr, "token") || !strings.Contains(stderr, ">>>     secret: token") {
		t.Errorf("a missing secret: %v\n%s", err, stderr)
	}
}

// checkLeaks fails if a file below the paths contains a secret, or if none contains
// the control: then it could not find a secret either.
func checkLeaks(t *testing.T, paths []string, control []byte, secrets ...[]byte) {
	t.Helper()
	controls := 0
	for _, path := range paths {
		err := filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := os.ReadFile(name)
			for _, secret := range secrets {
				if bytes.Contains(data, secret) {
					t.Errorf("%s contains a secret", name)
				}
			}
			controls += bytes.Count(data, control)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if controls == 0 {
		t.Error("the control is not in the files: the test cannot find a secret")
	}
}

// The key that signs a machine is neither in the exported cache nor in the metadata
// of the build.
func TestSigningKey(t *testing.T) {
	stack.Require(t)
	const public = "for-everyone-47d2"
	dir := machineYAML(t, `kernel: {image: slipwaybuild/kernel:v1}
init: [slipwaybuild/init:v1, slipwaybuild/runc:v1]
files:
  - {path: etc/public, source: public.txt, mode: "0644"}
`)
	write(t, dir, map[string]string{"public.txt": public})
	mustSlipway(t, 0, "keys", "new", filepath.Join(dir, "keys"))
	text, err := os.ReadFile(filepath.Join(dir, "keys", "db.key"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("the key is not PEM: %q", text)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	cache := filepath.Join(t.TempDir(), "cache")
	_, stderr, err := stack.Buildx(dir, "--progress=plain", "-f", "machine.yml", "--target=uki", "-o", "out", "--build-arg=SIGN=true",
		"--secret=id=slipway.key,src=keys/db.key", "--secret=id=slipway.crt,src=keys/db.crt", "--metadata-file=metadata.json", "--provenance=mode=max",
		"--cache-to=type=local,mode=max,compression=uncompressed,force-compression=true,dest="+cache, ".")
	if err != nil {
		t.Fatal(stderr)
	}
	// The end of the file has private numbers.
	checkLeaks(t, []string{cache, filepath.Join(dir, "metadata.json")}, []byte(public), []byte(lines[len(lines)-3]), block.Bytes[len(block.Bytes)-64:])
}

// Absolute paths and paths in the home directory come from the context host.
func TestHostFiles(t *testing.T) {
	stack.Require(t)
	host := t.TempDir()
	write(t, host, map[string]string{"etc/motd": "hello", "home/me/.profile": "mine"})
	dir := machineYAML(t, "files:\n  - path: etc/motd\n    source: /etc/motd\n  - path: root/.profile\n    source: ~/.profile\n  - path: etc/none\n    source: none\n    optional: true\n")
	args := []string{"--progress=plain", "-f", "machine.yml", "--target=tar", "-o", "out", "."}

	_, stderr, err := stack.Buildx(dir, args...)
	if err == nil || !strings.Contains(stderr, "--build-context host=/") || !strings.Contains(stderr, ">>>     source: /etc/motd") {
		t.Errorf("without the context: %v\n%s", err, stderr)
	}
	_, stderr, err = stack.Buildx(dir, append([]string{"--build-context=host=" + host, "--build-arg=HOME=/home/me"}, args...)...)
	if err != nil {
		t.Fatal(stderr)
	}
	plan, stderr, err := stack.Buildx(dir, "--call=machine.plan", "--build-context=host="+host, "--build-arg=HOME=/home/me", "-f", "machine.yml", ".")
	if err != nil || !strings.Contains(plan, "/root/.profile 0600 0:0 ~/.profile\n") {
		t.Errorf("the plan does not name a source as in the YAML: %v\n%s%s", err, plan, stderr)
	}
	files := tree(t, filepath.Join(dir, "out", "machine.tar"))
	if files["etc/motd"] != "hello" || files["root/.profile"] != "mine" {
		t.Errorf("got %q and %q", files["etc/motd"], files["root/.profile"])
	}
	if _, ok := files["etc/none"]; ok {
		t.Error("the machine has an optional file whose source does not exist")
	}
}

// docker buildx leaves out an optional file that is outside of the build
// context, and says how to pass it. The program passes it itself, and no other
// file.
func TestOptionalHostFile(t *testing.T) {
	stack.Require(t)
	host := t.TempDir()
	write(t, host, map[string]string{"motd": "hello", "other": "private"})
	source := filepath.Join(host, "motd")
	dir := machineYAML(t, "files:\n  - path: etc/app/motd\n    source: "+source+"\n    optional: true\n"+
		"  - path: srv/a\n    source: "+host+"/none\n    optional: true\n  - path: srv/a/b\n    contents: b\n")
	_, stderr, err := stack.Buildx(dir, "--progress=plain", "-f", "machine.yml", "--target=tar", "-o", "out", ".")
	if err != nil || !strings.Contains(stderr, `file "etc/app/motd" is left out`) || !strings.Contains(stderr, "--build-context host=/") {
		t.Errorf("docker buildx: %v\n%s", err, stderr)
	}
	files := tree(t, filepath.Join(dir, "out", "machine.tar"))
	if _, ok := files["etc"]; ok || files["srv/a/b"] != "b" {
		t.Errorf("docker buildx: files %q", files)
	}
	stdout, stderr, exit := slipway(t, dir, "build", "--format=tar", "-o", "out2", "machine.yml")
	if exit != 0 || strings.Contains(stderr, "left out") {
		t.Fatalf("slipway: exit status %d\n%s%s", exit, stdout, stderr)
	}
	if got := tree(t, filepath.Join(dir, "out2", "machine.tar")); got["etc/app/motd"] != "hello" || got["srv/a/b"] != "b" {
		t.Errorf("slipway: files %q", got)
	}
}

// One build builds a machine and a package from its directory.
func TestPackageFolder(t *testing.T) {
	stack.Require(t)
	dir := machineYAML(t, "services:\n  - name: hello\n    image: \"@pkg:pkg/hello\"\n")
	write(t, dir, map[string]string{
		"pkg/hello/build.yml":  "image: hello\norg: test\nbuildArgs:\n  - GREETING=hi\nconfig:\n  capabilities: [CAP_SYS_TIME]\n",
		"pkg/hello/Dockerfile": "FROM slipwaybuild/rngd:v1\nARG GREETING\nCOPY <<EOF /greeting\n${GREETING} all\nEOF\nCOPY data /data\nCMD [\"/sbin/rngd\"]\n",
		"pkg/hello/data":       "data",
	})
	_, stderr, err := stack.Buildx(dir, "--progress=plain", "-f", "machine.yml", "--target=tar", "-o", "out", ".")
	if err != nil {
		t.Fatal(stderr)
	}
	files := tree(t, filepath.Join(dir, "out", "machine.tar"))
	bundle := "containers/services/hello/"
	if got := files[bundle+"lower/greeting"]; got != "hi all\n" {
		t.Errorf("greeting %q", got)
	}
	if got := files[bundle+"lower/data"]; got != "data" {
		t.Errorf("data %q", got)
	}
	if !strings.Contains(files[bundle+"config.json"], "CAP_SYS_TIME") {
		t.Error("the config of build.yml is not in config.json")
	}
}
