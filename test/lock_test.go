package test

import (
	"fmt"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/stack"
)

// A locked machine does not change when tags move. A build fails if the lock
// does not match the YAML or the frontend.
func TestLock(t *testing.T) {
	stack.Require(t)
	app, tool := stack.Registry+"/test/lock-app:v1", stack.Registry+"/test/lock-tool:v1"
	yml := func(images ...string) string {
		return "# syntax=slipwaybuild/slipway:1\ninit:\n  - " + strings.Join(images, "\n  - ") + "\n"
	}
	app1, tool1 := publish(t, app, "app 1"), publish(t, tool, "tool 1")
	dir := t.TempDir()
	write(t, dir, map[string]string{"machine.yml": yml(app, tool)})
	lock := func(args ...string) string {
		t.Helper()
		stdout, stderr, exit := slipway(t, dir, append([]string{"lock", "--progress=plain", "machine.yml"}, args...)...)
		if exit != 0 || stdout != "machine.lock.yml\n" {
			t.Fatalf("slipway lock: %d %s%s", exit, stdout, stderr)
		}
		data, err := os.ReadFile(filepath.Join(dir, "machine.lock.yml"))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	text := func() string {
		t.Helper()
		if _, stderr, err := stack.Buildx(dir, "--progress=plain", "-f", "machine.yml", "--target=tar", "-o", "out", "."); err != nil {
			t.Fatal(stderr)
		}
		return tree(t, filepath.Join(dir, "out", "machine.tar"))["text"]
	}
	refused := func(want ...string) {
		t.Helper()
		_, stderr, err := stack.Buildx(dir, "--progress=plain", "-f", "machine.yml", "--target=tar", "-o", "out", ".")
		if err == nil {
			t.Error("the build succeeded")
		}
		for _, w := range want {
			if !strings.Contains(stderr, w) {
				t.Errorf("output lacks %q:\n%s", w, stderr)
			}
		}
	}

	first := lock()
	for _, line := range []string{"version: 1\n", "  " + app + ": " + app1 + "\n", "  " + tool + ": " + tool1 + "\n", "  slipwaybuild/slipway:1: sha256:"} {
		if !strings.Contains(first, line) {
			t.Errorf("the lock lacks %q:\n%s", line, first)
		}
	}
	printed, stderr, err := stack.Buildx(dir, "--call=machine.lock", "-f", "machine.yml", ".")
	if err != nil || strings.TrimSpace(printed) != strings.TrimSpace(first) {
		t.Errorf("--call=machine.lock: %v\n%s%s", err, printed, stderr)
	}

	app2, tool2 := publish(t, app, "app 2"), publish(t, tool, "tool 2")
	if got := text(); got != "tool 1" {
		t.Errorf("with the lock the tool is %q", got)
	}
	if got := lock("--update="); got != first {
		t.Errorf("--update= changed the lock:\n%s", got)
	}
	if got, want := lock("--update="+tool), strings.Replace(first, tool1, tool2, 1); got != want {
		t.Errorf("--update=%s gave\n%swant\n%s", tool, got, want)
	}
	if got := text(); got != "tool 2" {
		t.Errorf("after the update the tool is %q", got)
	}
	if got, want := lock(), strings.NewReplacer(tool1, tool2, app1, app2).Replace(first); got != want {
		t.Errorf("a new lock is\n%swant\n%s", got, want)
	}

	write(t, dir, map[string]string{"machine.yml": yml(app, tool, "slipwaybuild/rngd:v1")})
	refused(">>>   - slipwaybuild/rngd:v1", "not in machine.lock.yml", "slipway lock --update slipwaybuild/rngd:v1 machine.yml")
	write(t, dir, map[string]string{"machine.yml": yml(tool)})
	refused("machine.lock.yml:4: image "+app+" is not in machine.yml", "slipway lock --update= machine.yml")
	lock("--update=")
	text()

	write(t, dir, map[string]string{"machine.lock.yml": strings.ReplaceAll(lock(), tool2, "sha256:12")})
	refused("machine.lock.yml: line", "slipway lock machine.yml replaces it")

	other := strings.Repeat("0", 64)
	write(t, dir, map[string]string{"machine.lock.yml": fmt.Sprintf("version: 1\nimages:\n  %s: %s\n  slipwaybuild/slipway:1: sha256:%s\n", tool, tool1, other)})
	refused(">>> # syntax=slipwaybuild/slipway:1", "is now sha256:", other, "slipway lock --update slipwaybuild/slipway:1 machine.yml")
}

// A build context replaces an image, even a locked one.
func TestLockAndBuildContext(t *testing.T) {
	stack.Require(t)
	ref := stack.Registry + "/test/lock-context:v1"
	publish(t, ref, "published")
	dir := machineYAML(t, "init:\n  - "+ref+"\n")
	write(t, dir, map[string]string{"own/text": "mine"})
	if _, stderr, exit := slipway(t, dir, "lock", "--progress=plain", "machine.yml"); exit != 0 {
		t.Fatal(stderr)
	}
	if _, stderr, exit := slipway(t, dir, "build", "--progress=plain", "--format=tar", "--build-context="+ref+"=own", "machine.yml"); exit != 0 {
		t.Fatal(stderr)
	}
	if got := tree(t, filepath.Join(dir, "machine.tar"))["text"]; got != "mine" {
		t.Errorf("the machine contains %q", got)
	}
}

// With a lock, a machine that was built once builds again without a registry.
func TestLockOffline(t *testing.T) {
	stack.Require(t)
	upstream, err := url.Parse("http://" + stack.Registry)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(httputil.NewSingleHostReverseProxy(upstream))
	defer proxy.Close()
	host := "localhost:" + proxy.URL[strings.LastIndex(proxy.URL, ":")+1:]
	dir := t.TempDir()
	write(t, dir, map[string]string{"machine.yml": fmt.Sprintf("# syntax=%s/slipwaybuild/slipway:1\nkernel:\n  image: %s/slipwaybuild/kernel:v1\ninit:\n  - %s/slipwaybuild/init:v1\n", host, host, host)})
	if _, stderr, exit := slipway(t, dir, "lock", "--progress=plain", "machine.yml"); exit != 0 {
		t.Fatal(stderr)
	}
	build := func(out string) (string, int) {
		_, stderr, exit := slipway(t, dir, "build", "--progress=plain", "-o", out, "machine.yml")
		return stderr, exit
	}
	if stderr, exit := build("online"); exit != 0 {
		t.Fatal(stderr)
	}
	proxy.Close()
	if stderr, exit := build("offline"); exit != 0 {
		t.Errorf("with the lock:\n%s", stderr)
	}
	if err := os.Remove(filepath.Join(dir, "machine.lock.yml")); err != nil {
		t.Fatal(err)
	}
	if stderr, exit := build("unlocked"); exit == 0 {
		t.Errorf("without the lock, the build succeeded without the registry:\n%s", stderr)
	}
}

// BuildKit's source policies also apply to the images of a machine.
func TestSourcePolicy(t *testing.T) {
	stack.Require(t)
	ref := stack.Registry + "/test/policy:v1"
	publish(t, ref, "by policy")
	dir := machineYAML(t, "init:\n  - slipwaybuild/rngd:v1\n")
	write(t, dir, map[string]string{
		"convert.json": fmt.Sprintf(`{"rules": [{"action": "CONVERT", "selector": {"identifier": "docker-image://docker.io/slipwaybuild/rngd:v1"}, "updates": {"identifier": "docker-image://%s"}}]}`, ref),
		"deny.json":    `{"rules": [{"action": "DENY", "selector": {"identifier": "docker-image://docker.io/slipwaybuild/rngd*"}}]}`,
	})
	for name, build := range map[string]func() (string, bool){
		"docker buildx": func() (string, bool) {
			_, stderr, err := stack.Buildx(dir, "--progress=plain", "-f", "machine.yml", "--target=tar", "-o", "out", ".")
			return stderr, err == nil
		},
		"slipway": func() (string, bool) {
			_, stderr, exit := slipway(t, dir, "build", "--progress=plain", "--format=tar", "-o", "out", "machine.yml")
			return stderr, exit == 0
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("EXPERIMENTAL_BUILDKIT_SOURCE_POLICY", filepath.Join(dir, "convert.json"))
			if stderr, ok := build(); !ok {
				t.Fatal(stderr)
			}
			if got := tree(t, filepath.Join(dir, "out", "machine.tar"))["text"]; got != "by policy" {
				t.Errorf("the machine contains %q", got)
			}
			t.Setenv("EXPERIMENTAL_BUILDKIT_SOURCE_POLICY", filepath.Join(dir, "deny.json"))
			if stderr, ok := build(); ok || !strings.Contains(stderr, ">>>   - slipwaybuild/rngd:v1") {
				t.Errorf("a denied image: %v\n%s", ok, stderr)
			}
		})
	}
}
