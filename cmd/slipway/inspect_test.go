package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/examples"
	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/machine"
)

// archive writes a root file system as a tar archive.
func archive(t *testing.T, entries ...tree.Entry) string {
	t.Helper()
	var b bytes.Buffer
	if err := tree.WriteTar(&b, tree.AddParents(entries), time.Unix(0, 0)); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "m.tar")
	if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestInspect(t *testing.T) {
	name := archive(t, tree.NewFile("etc/motd", 0o644, "hello\n"), tree.NewSymlink("etc/link", "motd"))
	html := filepath.Join(t.TempDir(), "m.html")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"inspect", name}, "tar archive"},
		{[]string{"inspect", "--json", name}, `"kind": "tar archive"`},
		{[]string{"inspect", "--tree", name, "/etc"}, "Lrwxrwxrwx 0:0 0 etc/link -> motd\n-rw-r--r-- 0:0 6 etc/motd\n"},
		{[]string{"inspect", "--extract", "etc/motd", name}, "hello\n"},
		{[]string{"inspect", "--extract", "etc", name}, "etc/motd"},
		{[]string{"inspect", "--html", html, name}, ""},
		{[]string{"size", name}, "total"},
		{[]string{"size", "--json", name}, `"unpacked": 6`},
	} {
		status, stdout, stderr := execute(t, c.args...)
		if status != 0 || !strings.Contains(stdout, c.want) {
			t.Errorf("%v: status %d, %q, want %q; %s", c.args[:2], status, stdout, c.want, stderr)
		}
	}
	if page, err := os.ReadFile(html); err != nil || !bytes.Contains(page, []byte("<h1>")) {
		t.Errorf("%s: %v", html, err)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(html), ".slipway-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	for args, want := range map[string]string{
		"inspect " + name + " etc":       "PATH needs --tree",
		"inspect --extract none " + name: `the image has no "none"`,
		"inspect /none":                  "no such file",
		"diff " + name + " /none":        "no such file",
	} {
		if status, _, stderr := execute(t, strings.Fields(args)...); status == 0 || !strings.Contains(stderr, want) {
			t.Errorf("%s: status %d, %q, want %q", args, status, stderr, want)
		}
	}
}

func TestDiff(t *testing.T) {
	a, b := archive(t, tree.NewFile("f", 0o644, "1")), archive(t, tree.NewFile("f", 0o644, "2"))
	for _, c := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"diff", a, a}, 0, "are the same"},
		{[]string{"diff", a, b}, 1, "f     content"},
		{[]string{"diff", "--json", a, b}, 1, `"same": false`},
		{[]string{"diff", a, "/none"}, 2, ""},
	} {
		if status, stdout, _ := execute(t, c.args...); status != c.status || !strings.Contains(stdout, c.want) {
			t.Errorf("%v: status %d, want %d; %q, want %q", c.args, status, c.status, stdout, c.want)
		}
	}
}

func TestNew(t *testing.T) {
	t.Chdir(t.TempDir())
	all, err := examples.All()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		status, stdout, stderr := execute(t, "new", e.Name, "-o", "my-"+e.Name+".yml")
		text, err := os.ReadFile("my-" + e.Name + ".yml")
		if status != 0 || err != nil || stdout != "my-"+e.Name+".yml\n" {
			t.Errorf("%s: status %d, %v, %s%s", e.Name, status, err, stdout, stderr)
		}
		if bytes.Contains(text, []byte("root of the repository")) || bytes.Contains(text, []byte("examples/")) {
			t.Errorf("%s: the text is about the repository:\n%s", e.Name, text)
		}
	}
	if status, _, stderr := execute(t, "new", "aws", "-o", "my-aws.yml"); status != 1 || !strings.Contains(stderr, "my-aws.yml exists") {
		t.Errorf("twice: status %d, %s", status, stderr)
	}
	status, _, stderr := execute(t, "new", "--for", "enclave", "example.com/vault:v1")
	text, err := os.ReadFile("enclave.yml")
	if status != 0 || err != nil || !strings.Contains(stderr, "slipway build --format eif enclave.yml") ||
		!bytes.Contains(text, []byte("\n    image: example.com/vault:v1\n    readonly:")) || bytes.Contains(text, []byte("debian")) {
		t.Errorf("for an enclave: status %d, %v, %s\n%s", status, err, stderr, text)
	}
	for _, args := range [][]string{{"--for", "enclave"}, {"--for", "enclave", "A\nB"}, {"--for", "fun", "x"}} {
		if status, _, _ := execute(t, append([]string{"new"}, args...)...); status != 2 {
			t.Errorf("%q: status %d", args, status)
		}
	}
	if status, stdout, _ := execute(t, "new"); status != 0 || !strings.Contains(stdout, "aws ") {
		t.Errorf("list: status %d, %s", status, stdout)
	}
	if status, _, stderr := execute(t, "new", "asw"); status != 2 || !strings.Contains(stderr, `did you mean "aws"?`) {
		t.Errorf("typo: status %d, %s", status, stderr)
	}
}

func TestFormatsAndSchema(t *testing.T) {
	var formats []struct{ Name string }
	status, stdout, _ := execute(t, "formats", "--json")
	if err := json.Unmarshal([]byte(stdout), &formats); err != nil || status != 0 || formats[0].Name != "kernel+initrd" {
		t.Errorf("formats: status %d, %v, %+v", status, err, formats)
	}
	if status, stdout, _ := execute(t, "schema"); status != 0 || stdout != string(machine.JSONSchema()) {
		t.Errorf("schema: status %d", status)
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if status, stdout, _ := execute(t, "completion", shell); status != 0 || !strings.Contains(stdout, "slipway") {
			t.Errorf("completion %s: status %d", shell, status)
		}
	}
}
