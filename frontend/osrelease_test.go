package frontend

import (
	"regexp"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/slipway-build/slipway/internal/gatewaytest"
)

const fileWithRelease = "files:\n  - path: etc/os-release\n    metadata: os-release\n    mode: \"0644\"\n"

// release returns the contents of /etc/os-release in the machine.
func release(t *testing.T, g *gatewaytest.Gateway) string {
	t.Helper()
	g.Opts["build-arg:COMPRESSION"] = "none"
	mustBuild(t, g)
	for _, op := range onlyGraph(t, g).ops {
		for _, a := range op.GetFile().GetActions() {
			_, after, ok := strings.Cut(string(a.GetMkfile().GetData()), "NAME=\"Slipway\"\n")
			if text, _, ended := strings.Cut(after, "slipway-build/slipway\"\n"); ok && ended {
				return text
			}
		}
	}
	t.Fatal("no etc/os-release")
	return ""
}

func TestOSRelease(t *testing.T) {
	g := newGateway(t, twoImages+fileWithRelease)
	got := release(t, g)
	want := regexp.MustCompile(`^ID=slipway
VERSION_ID=devel
PRETTY_NAME="Slipway devel"
IMAGE_ID=aws
BUILD_ID=[0-9a-f]{32}
HOME_URL="https://github.com/$`)
	if !want.MatchString(got) {
		t.Errorf("got\n%s", got)
	}

	g = newGateway(t, twoImages+fileWithRelease)
	sum := digest.FromString(addLock(g, lockedImages...)).String()
	locked := release(t, g)
	if strings.Replace(locked, "SLIPWAY_LOCK="+sum+"\n", "", 1) != got {
		t.Errorf("with the lock %s of the same images:\n%s", sum, locked)
	}

	g = newGateway(t, twoImages+fileWithRelease)
	g.Opts["build-arg:NAME"] = "A machine"
	if named := release(t, g); strings.Contains(named, "IMAGE_ID") {
		t.Errorf("an invalid IMAGE_ID:\n%s", named)
	}
}

// The build is the same for the same machine, and another for another one.
func TestBuildID(t *testing.T) {
	id := func(yaml string, change func(*gatewaytest.Gateway)) string {
		t.Helper()
		g := newGateway(t, yaml)
		change(g)
		_, after, _ := strings.Cut(release(t, g), "BUILD_ID=")
		first, _, _ := strings.Cut(after, "\n")
		return first
	}
	none := func(*gatewaytest.Gateway) {}
	yaml := twoImages + fileWithRelease
	want := id(yaml, none)
	for name, got := range map[string]string{
		"the same":         id(yaml, none),
		"a comment":        id("# A comment.\n"+yaml, none),
		"another format":   id(yaml, func(g *gatewaytest.Gateway) { g.Opts["target"] = "tar" }),
		"another filename": id(yaml, func(g *gatewaytest.Gateway) { g.Opts["build-arg:NAME"] = "web" }),
	} {
		if got != want {
			t.Errorf("%s: build %s, want %s", name, got, want)
		}
	}
	for name, got := range map[string]string{
		"another image":    id(yaml, func(g *gatewaytest.Gateway) { moveTag(g, "slipwaybuild/sshd:v1") }),
		"another command":  id(strings.Replace(yaml, "files:", "    command: [/x]\nfiles:", 1), none),
		"another file":     id(yaml+"  - path: etc/x\n    contents: x\n", none),
		"another time":     id(yaml, func(g *gatewaytest.Gateway) { g.Opts["build-arg:SOURCE_DATE_EPOCH"] = "1" }),
		"another platform": id(yaml, func(g *gatewaytest.Gateway) { g.Opts["platform"] = "linux/arm64" }),
	} {
		if got == want {
			t.Errorf("%s: build %s again", name, got)
		}
	}
}
