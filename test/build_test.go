package test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/internal/testutil/stack"
)

func TestBadInput(t *testing.T) {
	stack.Require(t)
	for _, c := range []struct {
		name, yaml string
		args       []string
		want       []string // in the output
		buildxOnly bool     // slipway build has no such error
	}{
		{
			name: "unknown key",
			yaml: "onboot:\n  - name: dhcpcd\n    image: slipwaybuild/dhcpcd:v1\n    capabilites: [all]\n",
			want: []string{`machine.yml:5`, `>>>     capabilites: [all]`, `unknown key "capabilites"`, `did you mean "capabilities"?`},
		},
		{
			name: "missing image",
			yaml: "services:\n  - name: sshd\n",
			want: []string{`machine.yml:3`, `>>>   - name: sshd`, `image`},
		},
		{
			name: "two errors in one build",
			yaml: "init: 5\nservices:\n  - name: sshd\n    image: slipwaybuild/sshd:v1\n    readonly: maybe\n",
			want: []string{`>>> init: 5`, `>>>     readonly: maybe`},
		},
		{
			name: "errors of the parser and of the contexts in one build",
			yaml: "services:\n  - name: sshd\nfiles:\n  - path: root/.profile\n    source: ~/.profile\n",
			want: []string{`>>>   - name: sshd`, `>>>     source: ~/.profile`, `--build-context host=/ --build-arg HOME`},

			buildxOnly: true, // slipway build passes files of the host
		},
		{
			name: "bad target",
			yaml: "kernel:\n  image: slipwaybuild/kernel:v1\n",
			args: []string{"--target", "rawr"},
			want: []string{`--target: unknown format "rawr" (did you mean "raw"?); formats: kernel+initrd, aws, containerdisk, docker,`},
		},
		{
			name: "bad size",
			yaml: "kernel:\n  image: slipwaybuild/kernel:v1\n",
			args: []string{"--target", "raw", "--build-arg", "SIZE=100 potatoes"},
			want: []string{`--build-arg SIZE=100 potatoes: not a size; use a number with K, M or G, for example 100M`},
		},
		{
			name: "image that does not exist",
			yaml: "init:\n  - slipwaybuild/init:v1\n  - slipwaybuild/nonsuch:v1\n",
			want: []string{`machine.yml:4`, `>>>   - slipwaybuild/nonsuch:v1`, `image slipwaybuild/nonsuch:v1:`, `not found`},
		},
		{
			name: "kernel image without a kernel",
			yaml: "kernel:\n  image: slipwaybuild/runc:v1\n",
			want: []string{`machine.yml:`, `>>>   image: slipwaybuild/runc:v1`, `kernel image has no file "kernel"`, `set kernel.binary`},
		},
		{
			name: "file that is not in the context",
			yaml: "files:\n  - path: etc/app.conf\n    source: app.conf\n",
			want: []string{`>>>     source: app.conf`, `not in the build context`},
		},
		{
			name: "program that the image does not have",
			yaml: "services:\n  - name: web\n    image: slipwaybuild/nginx:v1\n    command: [/usr/sbin/ngnix]\n",
			args: []string{"--target", "tar"},
			want: []string{`>>>     command: [/usr/sbin/ngnix]`, `services.web: command: the image has no file "/usr/sbin/ngnix"`},
		},
		{
			name: "file on a directory",
			yaml: "services:\n  - name: web\n    image: slipwaybuild/nginx:v1\n    binds:\n      - /etc/page:/usr/share/nginx/html\nfiles:\n  - {path: etc/page, contents: hello}\n",
			args: []string{"--target", "kernel+initrd"},
			want: []string{`>>>       - /etc/page:/usr/share/nginx/html`, `services.web: mount on /usr/share/nginx/html: a file cannot be mounted on a directory of the image`},
		},
		{
			name: "disk smaller than its content",
			yaml: "kernel:\n  image: slipwaybuild/kernel:v1\n",
			args: []string{"--target", "raw", "--build-arg", "SIZE=10M"},
			want: []string{`SIZE 10M is too small by 26M: kernel, initrd and boot loaders need 36M`},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := machineYAML(t, c.yaml)
			for command, build := range map[string]func(out string) (stderr string, failed bool){
				"docker buildx build": func(out string) (string, bool) {
					_, stderr, err := stack.Buildx(dir, append(c.args, "--progress=quiet", "-f", "machine.yml", "-o", out, ".")...)
					return stderr, err != nil
				},
				"slipway build": func(out string) (string, bool) {
					args := append([]string{"build", "--progress=quiet", "-o", out, "machine.yml"}, c.args...)
					if i := slices.Index(args, "--target"); i > 0 {
						args[i] = "--format"
					}
					_, stderr, status := slipway(t, dir, args...)
					return stderr, status == 1
				},
			} {
				if c.buildxOnly && command == "slipway build" {
					continue
				}
				out := filepath.Join(t.TempDir(), "out")
				stderr, failed := build(out)
				if !failed {
					t.Errorf("%s: the build succeeded", command)
				}
				for _, w := range c.want {
					if !strings.Contains(stderr, w) {
						t.Errorf("%s: output lacks %q\n%s", command, w, stderr)
					}
				}
				if files, _ := os.ReadDir(out); len(files) > 0 {
					t.Errorf("%s: the output directory contains %v", command, files)
				}
			}
		})
	}
}

// After a change of one service's image, the build packs only that service and
// writes the format.
func TestRebuildOneService(t *testing.T) {
	stack.Require(t)
	root := t.TempDir()
	dir := machineYAML(t, `kernel:
  image: slipwaybuild/kernel:v1
init:
  - slipwaybuild/init:v1
onboot:
  - name: sysctl
    image: slipwaybuild/sysctl:v1
services:
  - name: rngd
    image: slipwaybuild/rngd:v1
  - name: sshd
    image: slipwaybuild/sshd:v1
`)
	service := filepath.Join(root, "Dockerfile")
	// Unique, so that nothing is in the cache of an earlier run.
	run := strconv.FormatInt(time.Now().UnixNano(), 36)
	image := func(text string) string {
		text += run
		if err := os.WriteFile(service, []byte("FROM slipwaybuild/rngd:v1\nCOPY <<EOF /version\n"+text+"\nEOF\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		ref := stack.Registry + "/test/rngd:" + text
		if _, stderr, err := stack.Buildx(root, "-o", "type=registry", "-t", ref, "."); err != nil {
			t.Fatal(stderr)
		}
		return "--build-context=slipwaybuild/rngd:v1=docker-image://" + ref
	}
	build := func(args ...string) []string {
		_, stderr, err := stack.Buildx(dir, append(args, "--progress=rawjson", "-f", "machine.yml", "--target=raw", "-o", filepath.Join(root, "out"), ".")...)
		if err != nil {
			t.Fatal(stderr)
		}
		return executed(t, stderr)
	}
	build(image("one"))

	if ran := build(image("one")); len(ran) > 0 {
		t.Errorf("an unchanged machine ran %q", ran)
	}
	ran := build(image("two"))
	want := []string{"[raw] write", "[services.rngd] pack"}
	if len(ran) != len(want) || !slices.EqualFunc(ran, want, strings.HasPrefix) {
		t.Errorf("one changed service ran %q, want %q", ran, want)
	}

	// slipway build runs one container, and receives what that packed.
	cache := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", cache)
	local := func(arg string) (stderr string) {
		_, stderr, exit := slipway(t, dir, "build", arg, "--progress=rawjson", "--format=raw", "-o", filepath.Join(root, "local"), "machine.yml")
		if exit != 0 {
			t.Fatal(stderr)
		}
		status, _, _ := strings.Cut(stderr, "\nto make an AMI of it: ")
		return status
	}
	local(image("two"))
	before := storedParts(t, cache)
	if len(before) != 6 { // kernel, init, sysctl, rngd, sshd, boot loaders
		t.Errorf("the first build of slipway stored %v", before)
	}
	if ran := executed(t, local(image("three"))); len(ran) != 1 || !strings.HasPrefix(ran[0], "[services.rngd] pack") {
		t.Errorf("one changed service ran %q in slipway build", ran)
	}
	after := storedParts(t, cache)
	for name := range before {
		delete(after, name)
	}
	for _, size := range after {
		if len(after) != 1 || size > 1<<20 {
			t.Errorf("one changed service moved %v bytes to slipway build, want one segment of rngd", after)
		}
	}
	if _, stderr, err := stack.Buildx(dir, image("three"), "-f", "machine.yml", "--target=raw", "-o", filepath.Join(root, "out"), "."); err != nil {
		t.Fatal(stderr)
	}
	sameFile(t, filepath.Join(root, "out/machine.raw"), filepath.Join(root, "local/machine.raw"))
}

// storedParts returns the sizes of the parts that slipway build stored.
func storedParts(t *testing.T, cache string) map[string]int64 {
	t.Helper()
	parts := map[string]int64{}
	files, err := filepath.Glob(filepath.Join(cache, "slipway/parts/*/files/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		parts[filepath.Dir(filepath.Dir(name))] += info.Size()
	}
	return parts
}

// Several formats in one build are the same as in a build each, and share all
// steps except the last.
func TestSeveralFormats(t *testing.T) {
	stack.Require(t)
	dir := machineYAML(t, "kernel:\n  image: slipwaybuild/kernel:v1\ninit:\n  - slipwaybuild/init:v1\n")
	build := func(target, out string) []string {
		_, stderr, err := stack.Buildx(dir, "--progress=rawjson", "-f", "machine.yml", "--build-arg=MAP=true", "--target="+target, "-o", out, ".")
		if err != nil {
			t.Fatal(stderr)
		}
		return executed(t, stderr)
	}
	build("raw,qcow2,tar", "all")
	files, err := filepath.Glob(filepath.Join(dir, "all", "*"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, filepath.Base(f))
	}
	if want := []string{"machine.qcow2", "machine.raw", "machine.raw.map", "machine.tar"}; !slices.Equal(names, want) {
		t.Errorf("files %q, want %q", names, want)
	}
	for _, target := range []string{"raw", "qcow2", "tar"} {
		if ran := build(target, "one"); len(ran) > 0 {
			t.Errorf("%s after all ran %q", target, ran)
		}
	}
	for _, name := range names {
		one, err := os.ReadFile(filepath.Join(dir, "one", name))
		if err != nil {
			t.Fatal(err)
		}
		if all, err := os.ReadFile(filepath.Join(dir, "all", name)); err != nil || !bytes.Equal(one, all) {
			t.Errorf("%s differs: %v", name, err)
		}
	}
	if out, err := exec.Command("qemu-img", "compare", filepath.Join(dir, "all/machine.raw"), filepath.Join(dir, "all/machine.qcow2")).CombinedOutput(); err != nil {
		t.Errorf("qemu-img compare: %v\n%s", err, out)
	}
}

// The frontend answers each request of docker buildx build --call.
func TestCalls(t *testing.T) {
	stack.Require(t)
	dir := machineYAML(t, "init:\n  - slipwaybuild/init:v1\ntrust:\n  org: [library]\n")
	for _, c := range []struct {
		call string
		want []string
		fail bool
	}{
		{call: "targets", want: []string{"kernel+initrd (default)", "GPT disk that boots under BIOS and UEFI"}},
		{call: "outline", want: []string{"NAME", "machine", "SIZE", "COMPRESSION"}},
		{call: "subrequests.describe", want: []string{"outline", "targets", "lint", "machine.plan", "machine.schema"}},
		{call: "machine.plan", want: []string{"init[0]", "MB  docker.io/slipwaybuild/init:v1@sha256:", "TrustIgnored"}},
		{call: "machine.plan,format=json", want: []string{`"name": "init[0]"`, `"platform": "linux/amd64"`}},
		{call: "machine.schema", want: []string{`"$schema"`, `"onboot"`}},
		{call: "check", want: []string{"machine.yml:", "trust", ">>> trust:"}, fail: true},
	} {
		t.Run(c.call, func(t *testing.T) {
			stdout, stderr, err := stack.Buildx(dir, "--call="+c.call, "-f", "machine.yml", ".")
			if (err != nil) != c.fail {
				t.Errorf("exit: %v", err)
			}
			for _, w := range c.want {
				if !strings.Contains(stdout, w) {
					t.Errorf("output lacks %q", w)
				}
			}
			if t.Failed() {
				t.Log(stdout, stderr)
			}
		})
	}
}

// The examples have no warnings.
func TestExamplesAreClean(t *testing.T) {
	stack.Require(t)
	examples, err := filepath.Glob("../examples/*.yml")
	if err != nil || len(examples) == 0 {
		t.Fatal("no examples", err)
	}
	dockerHubImages(t)
	for _, e := range examples {
		if (strings.HasSuffix(e, "docker-host.yml") || strings.HasSuffix(e, "k8s-node-skeleton.yml") || strings.HasSuffix(e, "enclave.yml") || strings.HasSuffix(e, "enclave-secret.yml")) && !*bootAll {
			continue // make test-boot builds the packages docker, kubelet and kernel-micro
		}
		stdout, stderr, err := stack.Buildx("..", "--check", "-f", strings.TrimPrefix(e, "../"), ".")
		if err != nil {
			t.Errorf("%s: %v\n%s%s", e, err, stdout, stderr)
		}
	}
}

// The target aws builds packages, frontend and machine from the checkout. The
// machine has the same bytes as that of a build from pulled images, except the
// BUILD_ID in etc/os-release: only pulled images have digests.
func TestBakeEqualsBuild(t *testing.T) {
	stack.Require(t)
	dir := t.TempDir()
	cmd := exec.Command("docker", "buildx", "bake", "--builder", stack.Builder, "--allow=fs.write="+dir, "--set", "aws.target=tar", "--set", "aws.output=type=local,dest="+filepath.Join(dir, "bake"), "aws")
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("bake: %v\n%s", err, out)
	}
	if _, stderr, err := stack.Buildx("..", "-f", "examples/aws.yml", "--target=tar", "-o", filepath.Join(dir, "build"), "."); err != nil {
		t.Fatal(stderr)
	}
	baked, err := os.ReadFile(filepath.Join(dir, "bake", "aws.tar"))
	if err != nil {
		t.Fatal(err)
	}
	built, err := os.ReadFile(filepath.Join(dir, "build", "aws.tar"))
	if err != nil {
		t.Fatal(err)
	}
	id := regexp.MustCompile(`BUILD_ID=[0-9a-f]{32}`)
	if !bytes.Equal(id.ReplaceAll(baked, nil), id.ReplaceAll(built, nil)) {
		t.Error("the baked machine differs from the built one")
	}
}
