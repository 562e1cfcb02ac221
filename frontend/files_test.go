package frontend

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	lintreq "github.com/moby/buildkit/frontend/subrequests/lint"

	"github.com/slipway-build/slipway/internal/gatewaytest"
	"github.com/slipway-build/slipway/machine"
)

func TestFiles(t *testing.T) {
	g := newGateway(t, "files:\n  - path: etc/app.conf\n    source: conf/app.conf\n  - path: etc/motd\n    source: /etc/motd\n"+
		"  - path: root/.profile\n    source: ~/.profile\n  - path: etc/none\n    source: none\n    optional: true\n  - path: etc/text\n    contents: text\n")
	g.Locals["context"] = gatewaytest.Files{"conf/app.conf": "app"}
	g.Locals["host"] = gatewaytest.Files{"etc/motd": "hello", "home/me/.profile": "profile"}
	g.Opts["context:host"] = "local:host"
	g.Opts["build-arg:HOME"] = "/home/me"
	mustBuild(t, g)
	graph := onlyGraph(t, g)
	entries := graph.mkfiles()["entries.json"]
	for _, want := range []string{`"source":"context/conf/app.conf"`, `"source":"host/etc/motd"`, `"source":"host/home/me/.profile"`, `"path":"etc/text"`} {
		if !strings.Contains(entries, want) {
			t.Errorf("entries lack %s:\n%s", want, entries)
		}
	}
	if strings.Contains(entries, "etc/none") {
		t.Error("an optional file that does not exist is an entry")
	}
	if got := graph.sources(); !slices.Contains(got, "local://context") || !slices.Contains(got, "local://host") {
		t.Errorf("sources %q", got)
	}
}

func TestFileErrors(t *testing.T) {
	for _, c := range []struct {
		source string
		opts   map[string]string
		want   string
	}{
		{"none", nil, `source "none" of file "etc/f" is not in the build context; paths are relative to it`},
		{"secret", nil, `source "secret" of file "etc/f" is not in the build context`}, // .dockerignore excludes it
		{"dir", nil, `source "dir" of file "etc/f" is a directory; name a file`},
		{"/etc/motd", nil, `source "/etc/motd" is outside of the build context: copy it into the context and use a relative path, or pass --build-context host=/`},
		{"../motd", nil, `source "../motd" is outside of the build context: copy it into the context, or use a context that contains it`},
		{"~/.profile", map[string]string{"context:host": "local:host"}, "or pass --build-context host=/ --build-arg HOME"},
		{"/none", map[string]string{"context:host": "local:host"}, "is not in the build context host"},
	} {
		t.Run(c.source, func(t *testing.T) {
			g := newGateway(t, "init:\n  - slipwaybuild/init:v1\nfiles:\n  - path: etc/f\n    source: "+c.source+"\n")
			g.Locals["context"] = gatewaytest.Files{"dir/file": "", "secret": "", ".dockerignore": "secret\n"}
			g.Locals["host"] = gatewaytest.Files{"etc/motd": ""}
			for name, value := range c.opts {
				g.Opts[name] = value
			}
			_, err := Build(t.Context(), g)
			wantError(t, err, c.want, "aws.yml:5:source: "+c.source)
		})
	}
}

// An optional file whose source is missing or in no build context has no effect,
// except a warning if another command would find it.
func TestOptionalFiles(t *testing.T) {
	const yaml = "init:\n  - slipwaybuild/init:v1\nfiles:\n  - path: srv/a\n    source: none\n    optional: true\n  - path: root/.ssh/authorized_keys\n    source: ~/.ssh/id_ed25519.pub\n    optional: true\n"
	const warning = `SourceOutside: file "root/.ssh/authorized_keys" is left out: source "~/.ssh/id_ed25519.pub" is outside of the build context: ` +
		`copy it into the context and use a relative path, or pass --build-context host=/ --build-arg HOME (line 8)`
	build := func(opts map[string]string) (*gatewaytest.Gateway, map[string]string) {
		g := newGateway(t, yaml)
		g.Locals["host"] = gatewaytest.Files{"home/me/.ssh/id_ed25519.pub": "key"}
		maps.Copy(g.Opts, opts)
		mustBuild(t, g)
		return g, onlyGraph(t, g).mkfiles()
	}
	left, without := build(nil)
	if got := warnings(left); !slices.Equal(got, []string{warning}) {
		t.Errorf("warnings %q, want %q", got, warning)
	}
	if skipped, _ := build(map[string]string{"build-arg:BUILDKIT_DOCKERFILE_CHECK": "skip=SourceOutside"}); len(warnings(skipped)) > 0 {
		t.Errorf("skipped warnings %q", warnings(skipped))
	}
	none := newGateway(t, "init:\n  - slipwaybuild/init:v1\n")
	mustBuild(t, none)
	if diff := cmp.Diff(onlyGraph(t, none).mkfiles(), without); diff != "" {
		t.Errorf("generated files (-without entries +with missing ones):\n%s", diff)
	}
	passed, with := build(map[string]string{"context:host": "local:host", "build-arg:HOME": "/home/me"})
	if want := `"source":"host/home/me/.ssh/id_ed25519.pub"`; len(warnings(passed)) > 0 || !strings.Contains(with["entries.json"], want) {
		t.Errorf("warnings %q, entries %s, want %s", warnings(passed), with["entries.json"], want)
	}

	g := newGateway(t, yaml)
	var results lintreq.LintResults
	call(t, g, "frontend.lint", &results)
	if results.Error != nil || len(results.Warnings) != 1 || results.Warnings[0].RuleName != machine.SourceOutside {
		t.Errorf("check %+v", results)
	}
}

// Errors of the parser and sources outside of the context are reported together.
func TestFileAndSyntaxErrors(t *testing.T) {
	g := newGateway(t, "init: 5\nfiles:\n  - path: etc/motd\n    source: /etc/motd\n")
	_, err := Build(t.Context(), g)
	wantError(t, err, "init", "aws.yml:1:init: 5", "aws.yml:4:source: /etc/motd")
}

const withSecret = "files:\n  - path: etc/token\n    secret: token\n"

// The vertex with a secret depends on the session, so that no cache gets it.
func TestSecret(t *testing.T) {
	g := newGateway(t, withSecret)
	mustBuild(t, g)
	graph := onlyGraph(t, g)
	if got := graph.sources(); !slices.Contains(got, "local://context") {
		t.Errorf("sources %q lack the session", got)
	}
	if graph.exec("/slipway-packer entries") == nil {
		t.Error("no container packs the secret")
	}
}

func TestSecretWithRemoteContext(t *testing.T) {
	g := newGateway(t, withSecret)
	g.Locals["other"] = gatewaytest.Files{"aws.yml": withSecret}
	g.Opts["dockerfilekey"] = "other"
	g.Opts["context"] = "https://github.com/slipway-build/slipway.git"
	_, err := Build(t.Context(), g)
	wantError(t, err, "secrets require a build context on the client", "aws.yml:3:secret: token")
}
