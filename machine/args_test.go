package machine_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-build/slipway/machine"
)

// parseWith parses a machine with the values of args. The files by name are to be
// included; overlays follow the first.
func parseWith(t *testing.T, args, files map[string]string, sources ...string) *machine.Machine {
	t.Helper()
	o := machine.Options{Args: args, Include: func(name string) (machine.Source, error) {
		text, ok := files[name]
		if !ok {
			return machine.Source{}, errors.New("not found")
		}
		return machine.Source{Name: name, Data: []byte(text)}, nil
	}}
	var all []machine.Source
	for i, text := range sources {
		all = append(all, machine.Source{Name: fmt.Sprintf("%d.yml", i), Data: []byte(text)})
	}
	m, err := o.Parse(all...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

const withArgs = `args:
  - {name: CONSOLE, default: ttyS0}
  - {name: IMAGE, type: image, required: true}
  - {name: ADJ, type: int, default: 5}
  - {name: LIMIT, type: size, default: 1M}
  - {name: RO, type: bool, default: true}
  - {name: BOTH, default: "${CONSOLE},$${CONSOLE}"}
  - {name: EMPTY}
kernel:
  image: example.test/kernel:1
  cmdline: console=${CONSOLE} ${BOTH} $CONSOLE $${CONSOLE} ${EMPTY}.
services:
  - name: web
    image: ${IMAGE}
    oomScoreAdj: ${ADJ}
    readonly: ${RO}
    env: ["N=${ADJ}", "${ADJ}"]
    resources: {memory: {limit: "${LIMIT}"}}
    sysctl: {"${CONSOLE}": "${CONSOLE}"}
files:
  - path: etc/script
    contents: |
      a
      ${CONSOLE}
`

func TestArgs(t *testing.T) {
	m := parseWith(t, map[string]string{"IMAGE": "example.test/web:2", "OTHER": "x"}, nil, withArgs)
	web := m.Services[0]
	if got, want := m.Kernel.Cmdline, "console=ttyS0 ttyS0,${CONSOLE} $CONSOLE ${CONSOLE} ."; got != want {
		t.Errorf("command line %q, want %q", got, want)
	}
	if web.Image.Name != "example.test/web:2" || *web.OOMScoreAdj != 5 || !web.Readonly || *web.Resources.Memory.Limit != 1<<20 {
		t.Errorf("service %+v", web)
	}
	if want := []string{"N=5", "5"}; !slices.Equal(web.Env, want) {
		t.Errorf("environment %q", web.Env)
	}
	if want := map[string]string{"${CONSOLE}": "ttyS0"}; !maps.Equal(web.Sysctl, want) {
		t.Errorf("sysctl %q: keys are not substituted", web.Sysctl)
	}
	if got := m.Files[0].Contents; got != "a\nttyS0\n" {
		t.Errorf("contents %q", got)
	}
	var args []string
	for _, a := range m.ArgValues() {
		args = append(args, fmt.Sprintf("%s %s %s %t", a.Name, a.Kind(), a.Value, a.Given))
	}
	want := []string{"CONSOLE string ttyS0 false", "IMAGE image example.test/web:2 true", "ADJ int 5 false", "LIMIT size 1M false",
		"RO bool true false", "BOTH string ttyS0,${CONSOLE} false", "EMPTY string  false"}
	if diff := cmp.Diff(want, args); diff != "" {
		t.Errorf("args (-want +got):\n%s", diff)
	}
	for _, format := range []string{"json", "yaml"} {
		if text := string(m.Describe(format)); strings.Contains(text, "args") || strings.Contains(text, "IMAGE") {
			t.Errorf("the description has args:\n%s", text)
		}
	}
}

// TestWithoutArgs checks that nothing is substituted in files without args.
func TestWithoutArgs(t *testing.T) {
	m := parseWith(t, map[string]string{"A": "x"}, nil, "kernel: {image: 'example.test/k:1', cmdline: '${A} $${A} ${'}")
	if got := m.Kernel.Cmdline; got != "${A} $${A} ${" {
		t.Errorf("command line %q", got)
	}
}

// TestArgInjection checks that a value is only ever one value: what looks like
// YAML, an arg or another type in it is text.
func TestArgInjection(t *testing.T) {
	const text = "args: [{name: V}, {name: OTHER, default: secret}]\nservices:\n- name: web\n  image: example.test/web:1\n  command: [\"${V}\"]\n  cwd: ${V}\n  env: [\"${OTHER}\"]\n"
	for _, value := range []string{
		"x\n  readonly: true", "x]\n  pid: host", "${OTHER}", "$${OTHER}", "null", "true", "0x10", "&a", "*a", "!!int 5", "# comment", "{a: b}", "- a", "\"", "'", "<<", "a: b", "1.5",
	} {
		m := parseWith(t, map[string]string{"V": value}, nil, text)
		web := m.Services[0]
		if len(web.Command) != 1 || web.Command[0] != value || web.Cwd != value || web.Readonly || web.Pid != "" || len(m.Services) != 1 {
			t.Errorf("%q: %+v", value, web)
		}
	}
}

// TestArgsOfOverlays checks that all files share their args, and that a later
// file changes a default.
func TestArgsOfOverlays(t *testing.T) {
	m := parseWith(t, nil, nil,
		"args: [{name: A, default: a, description: first}]\nkernel: {image: 'example.test/k:1', cmdline: '${A} ${B}'}\n",
		"args: [{name: A, default: b}, {name: B, default: '${A}'}]\nfiles: [{path: x, contents: '${A}'}]\n")
	if m.Kernel.Cmdline != "b b" || m.Files[0].Contents != "b" || m.ArgValues()[0].Description != "first" {
		t.Errorf("command line %q, files %+v, args %+v", m.Kernel.Cmdline, m.Files, m.ArgValues())
	}
}

func TestInclude(t *testing.T) {
	files := map[string]string{
		"common/base.yml": "include: [{file: volumes.yml}]\nservices: [{name: base, image: 'example.test/base:1'}]\n",
		// Included by two files, and merged once.
		"common/volumes.yml": "volumes: [{name: data}]\nonboot: [{name: once, image: 'example.test/once:1'}]\n",
		"service.yml": "args: [{name: NAME, required: true}, {name: PORT, type: int, default: 80}]\n" +
			"services: [{name: '${NAME}', image: 'example.test/web:1', command: ['${PORT}', '${SHARED}']}]\n",
	}
	m := parseWith(t, map[string]string{"PORT": "99"}, files, `args: [{name: SHARED, default: s}, {name: DIR, default: common}]
include:
  - {file: "${DIR}/base.yml"}
  - {file: common/volumes.yml}
  - {file: service.yml, args: {NAME: one, PORT: "81"}}
  - {file: service.yml, args: {NAME: "two-${SHARED}"}}
services:
  - {name: base, $patch: merge, readonly: true}
`)
	var got []string
	for _, s := range m.Services {
		got = append(got, fmt.Sprintf("%s %q %t", s.Name, s.Command, s.Readonly))
	}
	want := []string{`base [] true`, `one ["81" "s"] false`, `two-s ["99" "s"] false`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("services (-want +got):\n%s", diff)
	}
	if len(m.Volumes) != 1 || len(m.Onboot) != 1 {
		t.Errorf("%d volumes, %d onboot containers, want one each", len(m.Volumes), len(m.Onboot))
	}
}

func TestPatches(t *testing.T) {
	m := parseWith(t, nil, nil, `onboot:
  - {name: a, image: "example.test/a:1"}
  - {name: b, image: "example.test/b:1"}
services:
  - {name: web, image: "example.test/web:1", command: [serve], env: [A=b], runtime: {mkdir: [/x]}}
  - {name: log, image: "example.test/log:1", command: [log]}
files:
  - {path: etc/motd, contents: hello, mode: "0644"}
  - {path: etc/hosts, contents: x}
volumes:
  - {name: data}
`, `onboot:
  - {name: after-a, image: "example.test/c:1", $after: a}
  - {name: after-a2, image: "example.test/c:1", $after: a}
  - {name: before-a, image: "example.test/c:1", $before: a}
  - {name: a, $patch: merge, $after: b}
services:
  - {name: web, $patch: merge, env: [C=d], runtime: {bindNS: {net: /run/net}}}
  - {name: log, $patch: replace, image: "example.test/journal:1"}
files:
  - {path: /etc/motd, $patch: merge, contents: bye}
  - {path: etc/hosts, $patch: delete}
volumes:
  - {name: data}
`)
	var names []string
	for _, c := range m.Onboot {
		names = append(names, string(c.Name))
	}
	if want := []string{"before-a", "after-a", "after-a2", "b", "a"}; !slices.Equal(names, want) {
		t.Errorf("onboot %q, want %q", names, want)
	}
	web, log := m.Services[0], m.Services[1]
	if web.Image.Name != "example.test/web:1" || !slices.Equal(web.Command, []string{"serve"}) || !slices.Equal(web.Env, []string{"C=d"}) ||
		!slices.Equal(web.Runtime.Mkdir, []string{"/x"}) || web.Runtime.BindNS.Net != "/run/net" || web.Patch != "" {
		t.Errorf("merged service %+v", web)
	}
	if log.Image.Name != "example.test/journal:1" || log.Command != nil {
		t.Errorf("replaced service %+v", log)
	}
	if len(m.Files) != 1 || m.Files[0].Contents != "bye" || *m.Files[0].Mode != 0o644 || len(m.Volumes) != 1 {
		t.Errorf("files %+v, volumes %+v", m.Files, m.Volumes)
	}
	if text := string(m.Describe("yaml")); strings.Contains(text, "$") {
		t.Errorf("the description has keys of patches:\n%s", text)
	}
}

func TestAnnotated(t *testing.T) {
	files := map[string]string{"log.yml": "services:\n  - name: log\n    image: example.test/log:1\n"}
	m := parseWith(t, nil, files, `args:
  - {name: CONSOLE, default: ttyS0}
include:
  - file: log.yml
kernel:
  image: example.test/kernel:1
  cmdline: console=${CONSOLE}
files:
  - path: etc/motd
    contents: |
      hello
      world
`, "services:\n  - name: log\n    $patch: merge\n    readonly: true\n")
	const want = `kernel:                         # 0.yml:5
  image: example.test/kernel:1  # 0.yml:6
  cmdline: console=ttyS0        # 0.yml:7
services:                       # 1.yml:1
  - name: log                   # 1.yml:2
    image: example.test/log:1   # log.yml:3
    readonly: true              # 1.yml:4
files:                          # 0.yml:8
  - path: etc/motd              # 0.yml:9
    contents: |                 # 0.yml:10
      hello
      world
`
	got := string(m.Annotated())
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if again := parseWith(t, nil, nil, got); string(again.Describe("yaml")) != string(m.Describe("yaml")) {
		t.Errorf("the annotated YAML is another machine:\n%s", again.Describe("yaml"))
	}
}
