package frontend

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/subrequests/outline"

	"github.com/slipway-build/slipway/internal/gatewaytest"
)

const argsYAML = `args:
  - name: SSHD
    type: image
    description: image of the ssh server
    default: slipwaybuild/sshd:v1
  - name: MOTD
    required: true
init:
  - slipwaybuild/init:v1
services:
  - name: sshd
    image: ${SSHD}
files:
  - path: etc/motd
    contents: ${MOTD}
`

func argsGateway(t *testing.T, args map[string]string) *gatewaytest.Gateway {
	g := newGateway(t, argsYAML)
	for name, value := range args {
		g.Opts["build-arg:"+name] = value
	}
	return g
}

// TestArgsDigest checks that the graph depends on the values of args, however
// they are set, and that no option warns about them.
func TestArgsDigest(t *testing.T) {
	digests := map[string]string{}
	for name, args := range map[string]map[string]string{
		"default": {"MOTD": "hello"},
		"given":   {"MOTD": "hello", "SSHD": "slipwaybuild/sshd:v1"},
		"motd":    {"MOTD": "bye"},
		"image":   {"MOTD": "hello", "SSHD": "slipwaybuild/rngd:v1"},
	} {
		g := argsGateway(t, args)
		mustBuild(t, g)
		if got := warnings(g); len(got) > 0 {
			t.Errorf("%s: warnings %q", name, got)
		}
		digests[name] = finalDigest(t, g)
	}
	if digests["default"] != digests["given"] || digests["motd"] == digests["default"] || digests["image"] == digests["default"] {
		t.Errorf("digests %q", digests)
	}
}

// finalDigest returns the digest of the last vertex that the frontend submitted.
func finalDigest(t *testing.T, g *gatewaytest.Gateway) string {
	t.Helper()
	solved := g.Solved()
	def := solved[len(solved)-1].Definition.Def
	return string(def[len(def)-1])
}

func TestArgsErrors(t *testing.T) {
	_, err := Build(t.Context(), argsGateway(t, map[string]string{"SSHD": "Not An Image"}))
	wantError(t, err, `aws.yml:2: arg "SSHD" is "Not An Image", from the build argument, and is not a valid image reference`,
		"aws.yml:2:- name: SSHD", "aws.yml:6:- name: MOTD")
	if !strings.Contains(err.Error(), `aws.yml:6: arg "MOTD" is required`) {
		t.Errorf("%v: the required arg is missing", err)
	}
	for _, name := range []string{"NAME", "size", "OVERLAYS", "LOCK_UPDATE", "http_proxy", "BUILDKIT_SYNTAX", "TARGETARCH", "SOURCE_DATE_EPOCH"} {
		g := newGateway(t, "args: [{name: "+name+"}]\n"+twoImages)
		_, err := Build(t.Context(), g)
		wantError(t, err, "has the name of a build option", "aws.yml:1:args: [{name: "+name+"}]")
	}
}

func TestArgsOutline(t *testing.T) {
	g := argsGateway(t, map[string]string{"MOTD": "hello"})
	var o outline.Outline
	call(t, g, "frontend.outline", &o)
	if a := o.Args[0]; a.Name != "SSHD" || a.Value != "slipwaybuild/sshd:v1" ||
		a.Description != "image of the ssh server (image; default: slipwaybuild/sshd:v1)" || a.Location.Ranges[0].Start.Line != 2 {
		t.Errorf("first arg %+v", a)
	}
	if a := o.Args[1]; a.Name != "MOTD" || a.Value != "hello" || a.Description != "(string; required)" {
		t.Errorf("second arg %+v", a)
	}
	// The outline is for those who do not know what is required, too.
	delete(g.Opts, "build-arg:MOTD")
	call(t, g, "frontend.outline", &o)
	if o.Args[1].Name != "MOTD" {
		t.Errorf("args %+v", o.Args)
	}
}

func TestArgsPlan(t *testing.T) {
	g := argsGateway(t, map[string]string{"MOTD": "hello"})
	var plan planReport
	text := call(t, g, "frontend.machine.plan", &plan)
	want := []planArg{
		{"SSHD", "slipwaybuild/sshd:v1", false, "image", "image of the ssh server"},
		{"MOTD", "hello", true, "string", ""},
	}
	if !slices.Equal(plan.Args, want) {
		t.Errorf("args %+v", plan.Args)
	}
	if !strings.HasPrefix(text, "ARG   VALUE                             TYPE    DESCRIPTION\nSSHD  \"slipwaybuild/sshd:v1\" (default)  image   image of the ssh server\n") {
		t.Errorf("text:\n%s", text)
	}
}

func TestResolved(t *testing.T) {
	g := argsGateway(t, map[string]string{"MOTD": "hello", "OVERLAYS": "more.yml"})
	g.Locals["dockerfile"]["more.yml"] = "include: [{file: sub/one.yml}]\nservices: [{name: sshd, $patch: merge, readonly: true}]\n"
	g.Locals["dockerfile"]["sub/one.yml"] = "volumes: [{name: data}]\n"
	var m map[string]any
	text := call(t, g, "frontend.machine.resolved", &m)
	if _, ok := m["args"]; ok || len(m) != 4 {
		t.Errorf("machine %v", slices.Collect(maps.Keys(m)))
	}
	for _, want := range []string{
		"    image: docker.io/slipwaybuild/sshd:v1  # aws.yml:12\n",
		"    readonly: true                         # more.yml:2\n",
		"    contents: hello                        # aws.yml:15\n",
		"  - name: data                             # sub/one.yml:1\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
}

// TestIncludeErrors checks that errors show the lines of included files, and that
// includes stay in the folder of the machine YAML.
func TestIncludeErrors(t *testing.T) {
	g := newGateway(t, "include:\n  - file: sub/one.yml\n"+twoImages)
	g.Locals["dockerfile"]["sub/one.yml"] = "services:\n  - {name: x, image: 'slipwaybuild/nonsuch:v1'}\n"
	_, err := Build(t.Context(), g)
	wantError(t, err, "nonsuch:v1: not found", "sub/one.yml:2:- {name: x, image: 'slipwaybuild/nonsuch:v1'}")

	g = newGateway(t, "include:\n  - file: none.yml\n  - file: ../up.yml\n"+twoImages)
	_, err = Build(t.Context(), g)
	wantError(t, err, "aws.yml:2: include \"none.yml\": read none.yml, in the folder of the machine YAML: ", "aws.yml:2:- file: none.yml", "aws.yml:3:- file: ../up.yml")
}

// TestLockWithArgs checks that a lock may hold images that other values of args
// select, and that an update keeps them.
func TestLockWithArgs(t *testing.T) {
	g := argsGateway(t, map[string]string{"MOTD": "hello"})
	text := addLock(g, append(lockedImages, "slipwaybuild/rngd:v1")...)
	mustBuild(t, g)

	g = argsGateway(t, map[string]string{"MOTD": "hello", "SSHD": "slipwaybuild/rngd:v1"})
	addLock(g, lockedImages...)
	_, err := Build(t.Context(), g)
	wantError(t, err, "image slipwaybuild/rngd:v1: not in aws.lock.yml", "aws.yml:12:image: ${SSHD}")

	g.Opts["build-arg:LOCK_UPDATE"] = ""
	var lock map[string]any
	got := call(t, g, LockRequest, &lock)
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("no %q in:\n%s", line, got)
		}
	}
}
