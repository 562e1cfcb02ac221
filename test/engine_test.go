package test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/engine"
	"github.com/slipway-build/slipway/internal/testutil/stack"
)

// startEngine starts a Docker Engine that the test stops.
func startEngine(t *testing.T, c engine.Config) *engine.Engine {
	t.Helper()
	e, err := engine.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(e.Log())
		}
		if err := e.Stop(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// docker runs docker on an Engine and fails the test if it fails.
func docker(t *testing.T, e *engine.Engine, dir string, args ...string) string {
	t.Helper()
	cmd := e.Command(t.Context(), dir, "docker", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("docker %q: %v\n%s", args, err, stderr.String())
	}
	return string(out)
}

// dockerFails runs docker on an Engine and fails the test if it succeeds or does
// not print one of the texts.
func dockerFails(t *testing.T, e *engine.Engine, dir string, want []string, args ...string) {
	t.Helper()
	out, err := e.Command(t.Context(), dir, "docker", args...).CombinedOutput()
	if err == nil {
		t.Errorf("docker %q succeeded", args)
	}
	for _, w := range want {
		if !bytes.Contains(out, []byte(w)) {
			t.Errorf("docker %q does not print %q:\n%s", args, w, out)
		}
	}
}

// TestEngine builds on Docker Engine 28, through its docker driver, with each of
// its image stores.
func TestEngine(t *testing.T) {
	stack.Require(t)
	testEngine(t, engine.Config{Version: "28"})
	t.Run("user namespace", testRemappedEngine)
}

// TestNewEngine builds on Docker Engine 29 as TestEngine does, and through the
// docker-container driver.
func TestNewEngine(t *testing.T) {
	stack.Require(t)
	if !*bootAll {
		t.Skip("requires hack/engine 29 and takes minutes: make test-boot runs it")
	}
	// Debian's runc is too old for containers of this Engine.
	runc := filepath.Join(t.TempDir(), "runc")
	from := exec.Command("docker", "buildx", "build", "--builder", stack.Builder, "--quiet", "-o", filepath.Dir(runc), "-")
	from.Stdin = strings.NewReader("FROM scratch\nCOPY --from=slipwaybuild/runc:v1 /usr/bin/runc /runc\n")
	if out, err := from.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	c := engine.Config{Version: "29", Settings: map[string]any{
		"runtimes": map[string]any{"slipway": map[string]any{"path": runc}}, "default-runtime": "slipway",
		"init-path": "/usr/bin/tini-static",
	}}
	testEngine(t, c)
	c.Store = engine.Containerd
	t.Run("docker-container", func(t *testing.T) { testContainerDriver(t, startEngine(t, c), runc) })
}

func testEngine(t *testing.T, c engine.Config) {
	want := digest(t, awsDisk(t))
	for _, store := range []engine.Store{engine.Classic, engine.Containerd} {
		t.Run(string(store), func(t *testing.T) {
			c.Store = store
			e := startEngine(t, c)
			t.Run("same bytes", func(t *testing.T) {
				dir := t.TempDir()
				docker(t, e, "..", "buildx", "build", "-f", "examples/aws.yml", "--target", "raw", "--build-arg", "SIZE=100M", "-o", dir, ".")
				if got := digest(t, filepath.Join(dir, "aws.raw")); got != want {
					t.Errorf("aws.raw is %s, on the stack's buildkitd %s", got, want)
				}
			})
			t.Run("commands", func(t *testing.T) { testEngineCommands(t, e) })
			t.Run("local images", func(t *testing.T) { testLocalImages(t, e, store) })
			t.Run("other platform", func(t *testing.T) { testOtherPlatform(t, e) })
			t.Run("container", func(t *testing.T) { testContainer(t, e) })
			t.Run("features", func(t *testing.T) { testEngineFeatures(t, e, c) })
		})
	}
}

const engineMachine = "init:\n  - slipwaybuild/init:v1\n  - slipwaybuild/runc:v1\n"

// All commands that build on an Engine make the same machine.
func testEngineCommands(t *testing.T, e *engine.Engine) {
	program, err := command()
	if err != nil {
		t.Fatal(err)
	}
	dir := machineYAML(t, engineMachine)
	write(t, dir, map[string]string{"docker-bake.hcl": "target \"default\" {\n  dockerfile = \"machine.yml\"\n  target = \"tar\"\n  output = [\"bake\"]\n}\n"})
	docker(t, e, dir, "build", "-f", "machine.yml", "--target", "tar", "-o", "build", ".")
	docker(t, e, dir, "buildx", "bake", "--allow=fs.write="+dir)
	if out, err := e.Command(t.Context(), dir, program, "build", "--progress=plain", "--format=tar", "-o", "slipway", "machine.yml").CombinedOutput(); err != nil {
		t.Fatalf("slipway build: %v\n%s", err, out)
	} else if bytes.Contains(out, []byte("the builder lacks")) {
		t.Errorf("slipway build warns:\n%s", out)
	}
	for _, other := range []string{"bake", "slipway"} {
		sameFile(t, filepath.Join(dir, "build", "machine.tar"), filepath.Join(dir, other, "machine.tar"))
	}
}

// An image that the Engine has is used, whether it was pulled or built. The
// classic store knows no digests, which a lock needs.
func testLocalImages(t *testing.T, e *engine.Engine, store engine.Store) {
	own := t.TempDir()
	write(t, own, map[string]string{"Dockerfile": "FROM slipwaybuild/sysctl:v1\nCOPY text /\n", "text": "own"})
	docker(t, e, own, "build", "-t", "test/own:v1", ".")
	docker(t, e, own, "pull", "slipwaybuild/runc:v1")
	dir := machineYAML(t, engineMachine+"  - test/own:v1\nfiles:\n  - path: sbom.json\n    metadata: sbom\n")
	docker(t, e, dir, "build", "-f", "machine.yml", "--target", "tar", "-o", "out", ".")
	files := tree(t, filepath.Join(dir, "out", "machine.tar"))
	if files["text"] != "own" || files["usr/bin/runc"] == "" || !strings.Contains(files["sbom.json"], "test/own:v1") {
		t.Errorf("the machine has the files %q", slices.Sorted(maps.Keys(files)))
	}
	if plan := docker(t, e, dir, "build", "-f", "machine.yml", "--call=machine.plan", "."); !strings.Contains(plan, "test/own:v1") {
		t.Errorf("the plan lacks the image:\n%s", plan)
	}
	if store == engine.Classic {
		dockerFails(t, e, dir, []string{"machine.yml:5: image test/own:v1: the Docker Engine has it in an image store without digests"}, "build", "-f", "machine.yml", "--call=machine.lock", ".")
	}

	dir = machineYAML(t, engineMachine)
	lock := docker(t, e, dir, "build", "-f", "machine.yml", "--call=machine.lock", ".")
	want, stderr, err := stack.Buildx(dir, "--call=machine.lock", "-f", "machine.yml", ".")
	if err != nil {
		t.Fatal(stderr)
	}
	if lock != want {
		t.Errorf("the lock is\n%swant\n%s", lock, want)
	}
	write(t, dir, map[string]string{"machine.lock.yml": lock})
	docker(t, e, dir, "build", "-f", "machine.yml", "--target", "tar", "-o", "out", ".")
}

// An image that the Engine has for another platform is an error, as is one of a
// registry.
func testOtherPlatform(t *testing.T, e *engine.Engine) {
	native := t.TempDir()
	write(t, native, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
	docker(t, e, native, "build", "--provenance=false", "-t", "test/native:v1", ".")
	registry := stack.Registry + "/test/native:v1"
	push(t, native, registry)
	dir := machineYAML(t, "init:\n  - test/native:v1\nonboot:\n  - name: native\n    image: "+registry+"\n    command: [/Dockerfile]\n")
	want := []string{
		"machine.yml:3: image test/native:v1: does not exist for linux/arm64, but for linux/amd64",
		"machine.yml:6: image " + registry + ": does not exist for linux/arm64, but for linux/amd64",
	}
	for _, args := range [][]string{{"--target=tar", "-o=out"}, {"--check"}, {"--call=machine.lock"}} {
		dockerFails(t, e, dir, want, append(append([]string{"build"}, args...), "-f", "machine.yml", "--platform=linux/arm64", ".")...)
	}
}

// A container image has the same ID in every build, and its programs run.
func testContainer(t *testing.T, e *engine.Engine) {
	dir := machineYAML(t, rootMachine)
	build := func() string {
		t.Helper()
		docker(t, e, dir, "build", "-f", "machine.yml", "--target=docker", "--no-cache", "--provenance=false", "-t", "test/machine:v1", ".")
		return docker(t, e, dir, "image", "inspect", "--format={{.Id}}", "test/machine:v1")
	}
	if first, second := build(), build(); first != second {
		t.Errorf("the image is %s, then %s:\n%s", first, second, docker(t, e, dir, "history", "--no-trunc", "test/machine:v1"))
	}
	if out := docker(t, e, dir, "run", "--rm", "--network=none", "--entrypoint=/bin/busybox", "test/machine:v1", "ls", "/containers"); out != "onboot\n" {
		t.Errorf("the image has the containers %q", out)
	}
}

func testEngineFeatures(t *testing.T, e *engine.Engine, c engine.Config) {
	stored := t.TempDir()
	write(t, stored, map[string]string{"Dockerfile": "FROM scratch\nCOPY text /\n", "text": "stored"})
	docker(t, e, stored, "build", "-t", "test/stored:v1", ".")
	column := string(c.Store)
	if c.Version != "28" {
		column += " " + c.Version
	}
	testFeatures(t, column, func(dir string, args ...string) *exec.Cmd {
		return e.Command(t.Context(), dir, "docker", append([]string{"build"}, args...)...)
	})
}

// An Engine that maps the users of containers keeps device nodes, and nobody warns
// about them.
func testRemappedEngine(t *testing.T) {
	e := startEngine(t, engine.Config{Settings: map[string]any{"userns-remap": "default"}})
	image := t.TempDir()
	write(t, image, map[string]string{"Dockerfile": "FROM debian:trixie-slim AS build\nRUN mkdir -p /out/dev && mknod /out/dev/disk b 7 0\nFROM scratch\nCOPY --from=build /out /\n"})
	ref := stack.Registry + "/test/nodes:v1"
	push(t, image, ref)
	dir := machineYAML(t, "init:\n  - "+ref+"\n")
	out, err := e.Command(t.Context(), dir, "docker", "build", "--progress=plain", "-f", "machine.yml", "--target=tar", "-o=out", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if bytes.Contains(out, []byte("the builder lacks")) {
		t.Errorf("a warning:\n%s", out)
	}
	if _, ok := tree(t, filepath.Join(dir, "out", "machine.tar"))["dev/disk"]; !ok {
		t.Error("the machine lacks the device")
	}
}

// testContainerDriver builds with a BuildKit in a container of an Engine: the
// same bytes, with the features of the table.
func testContainerDriver(t *testing.T, e *engine.Engine, runc string) {
	config := filepath.Join(t.TempDir(), "buildkitd.toml")
	text := fmt.Sprintf("[registry.\"docker.io\"]\n  mirrors = [%q]\n[registry.%[1]q]\n  http = true\n  insecure = true\n", stack.Registry)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	// Engines of tests have no network for containers.
	docker(t, e, "", "buildx", "create", "--name=container", "--driver=docker-container", "--buildkitd-config="+config,
		"--driver-opt=network=host", "--driver-opt=image="+buildkitImage(t, runc))
	build := func(dir string, args ...string) *exec.Cmd {
		return e.Command(t.Context(), dir, "docker", append([]string{"buildx", "build", "--builder=container"}, args...)...)
	}
	dir := t.TempDir()
	cmd := build("..", "--progress=plain", "-f", "examples/aws.yml", "--target", "raw", "--build-arg", "SIZE=100M", "-o", dir, ".")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	sameFile(t, awsDisk(t), filepath.Join(dir, "aws.raw"))
	testFeatures(t, "current", build)
}

// buildkitImage publishes an image for the docker-container driver: the stack's
// BuildKit and runc, all static.
func buildkitImage(t *testing.T, runc string) string {
	t.Helper()
	dir, ref := t.TempDir(), stack.Registry+"/test/buildkit:v1"
	for _, file := range []string{stack.File(t, "bin", "buildkitd"), stack.File(t, "bin", "buildctl"), runc} {
		if out, err := exec.Command("cp", "-L", file, dir).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	write(t, dir, map[string]string{"Dockerfile": "FROM scratch\nENV PATH=/usr/bin\nCOPY buildkitd buildctl runc /usr/bin/\nWORKDIR /tmp\nVOLUME /var/lib/buildkit\nENTRYPOINT [\"buildkitd\"]\n"})
	push(t, dir, ref)
	return ref
}

// digest returns the SHA-256 digest of a file in hexadecimal.
func digest(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("sha256sum", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))[0]
}
