package frontend

import (
	"maps"
	"strings"
	"testing"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"go.yaml.in/yaml/v4"
)

// FuzzLock checks that a lock that can be read is written as one with the same
// images.
func FuzzLock(f *testing.F) {
	const digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	f.Add("version: 1\nimages:\n  alpine: " + digest + "\n  example.com/a:v1: " + digest + "\n")
	f.Add("version: 1\nimages: {a: &a " + digest + ", <<: {b: *a}}\n")
	f.Add("version: 1\n")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := parseLock("a.lock.yml", []byte(text))
		if err != nil {
			return
		}
		for name := range l.images {
			if l.lines[name] < 0 || l.lines[name] > strings.Count(text, "\n")+1 {
				t.Errorf("%q is on line %d", name, l.lines[name])
			}
			if familiar(name) != name {
				return // no name of an image, which the frontend never writes
			}
		}
		l.yml = "a.yml"
		again, err := parseLock("a.lock.yml", l.text())
		if err != nil {
			t.Fatalf("%v\n%s", err, l.text())
		}
		if !maps.Equal(l.images, again.images) {
			t.Errorf("read %v, written and read again %v", l.images, again.images)
		}
	})
}

// FuzzPackage checks that the options and the label of a build.yml that can be
// read are valid.
func FuzzPackage(f *testing.F) {
	f.Add("image: a\norg: b\narches: [amd64]\nnetwork: true\nbuildArgs: [A=b, C=]\nextra-sources: [../a:b]\nconfig: {binds: [/a:/b]}\n")
	f.Add("image: &a x\nconfig: {env: [*a, *a]}\n")
	f.Fuzz(func(t *testing.T, text string) {
		spec, err := parsePackage([]byte(text))
		if err != nil {
			return
		}
		options := spec.options(ocispecs.Platform{OS: "linux", Architecture: "amd64"}, false)
		if network, ok := options["force-network-mode"]; ok == spec.Network || ok && network != "none" {
			t.Errorf("network %v: options %q", spec.Network, options)
		}
		for name := range options {
			if !strings.HasPrefix(name, "build-arg:") && !known[name] {
				t.Errorf("option %q", name)
			}
		}
		if !spec.Config.IsZero() {
			if _, err := yaml.Marshal(&spec.Config); err != nil {
				t.Log(err)
			}
		}
	})
}

// known are the options that do not come from buildArgs.
var known = map[string]bool{"filename": true, "platform": true, "force-network-mode": true, "no-cache": true}
