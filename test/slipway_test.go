package test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/stack"
)

// command builds slipway once and returns its path.
var command = sync.OnceValues(func() (string, error) {
	program, err := filepath.Abs("../out/test/slipway")
	if err != nil {
		return "", err
	}
	out, err := exec.Command("go", "build", "-o", program, "../cmd/slipway").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, out)
	}
	return program, err
})

// slipway runs slipway in a directory with the builder of the tests.
func slipway(t *testing.T, dir string, args ...string) (stdout, stderr string, exit int) {
	t.Helper()
	program, err := command()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "BUILDX_BUILDER="+stack.Builder)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	var failed *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}

// slipway check, plan and diff answer for a real machine.
func TestSlipwayAnswers(t *testing.T) {
	stack.Require(t)
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("good.yml", "init: [slipwaybuild/init:v1]\nfiles: [{path: etc/motd, contents: one}]\n")
	write("bad.yml", "init: [slipwaybuild/init:v1]\nservices:\n- name: a\n  image: slipwaybuild/runc:v1\n  binds: [/nowhere:/x]\n")
	write("broken.yml", "init: [slipwaybuild/init:v1]\nfiels: []\n")
	for _, c := range []struct {
		args []string
		exit int
		want string
	}{
		{[]string{"check", "good.yml"}, 0, "good.yml: no warnings"},
		{[]string{"check", "bad.yml"}, 1, "BindMissing"},
		{[]string{"check", "--sarif", "bad.yml"}, 1, `"startLine": 5`},
		{[]string{"check", "--sarif", "broken.yml"}, 1, `"level": "error"`},
		{[]string{"check", "broken.yml"}, 1, "broken.yml:2"},
		{[]string{"plan", "good.yml"}, 0, "init[0]"},
		{[]string{"plan", "--json", "good.yml"}, 0, `"image"`},
		{[]string{"build", "--format", "tar", "-o", "one", "good.yml"}, 0, "good.tar"},
	} {
		if stdout, stderr, exit := slipway(t, dir, c.args...); exit != c.exit || !strings.Contains(stdout, c.want) {
			t.Errorf("%v: exit %d, want %d; %q, want %q\n%s", c.args, exit, c.exit, stdout, c.want, stderr)
		}
	}
	write("good.yml", "init: [slipwaybuild/init:v1]\nfiles: [{path: etc/motd, contents: two}]\n")
	if _, stderr, exit := slipway(t, dir, "build", "--format", "tar", "-o", "two", "good.yml"); exit != 0 {
		t.Fatal(stderr)
	}
	if stdout, stderr, exit := slipway(t, dir, "diff", "one/good.tar", "two/good.tar"); exit != 1 || !strings.Contains(stdout, "etc/motd  content") {
		t.Errorf("diff: exit %d\n%s%s", exit, stdout, stderr)
	}
}
