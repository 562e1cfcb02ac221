package client

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/buildkit/client"
)

func TestAttrs(t *testing.T) {
	o := Options{
		File:          "machines/aws.yml",
		Target:        "raw",
		BuildArgs:     map[string]string{"SIZE": "100M"},
		Attests:       map[string]string{"sbom": "generator=test/scanner"},
		NoCacheFilter: []string{"kernel", "services.sshd"},
		Platforms:     []string{"linux/aarch64", "amd64"},
		Pull:          true,
	}
	want := map[string]string{
		"filename":           "aws.yml",
		"target":             "raw",
		"build-arg:SIZE":     "100M",
		"attest:sbom":        "generator=test/scanner",
		"no-cache":           "kernel,services.sshd",
		"platform":           "linux/arm64,linux/amd64",
		"image-resolve-mode": "pull",
	}
	got, err := o.attrs()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if o.Platforms[0] != "linux/aarch64" {
		t.Error("the caller's platforms have changed")
	}
	got, err = Options{File: "aws.yml", NoCache: true}.attrs()
	if value, ok := got["no-cache"]; err != nil || !ok || value != "" || len(got) != 2 {
		t.Errorf("with --no-cache: %q, %v", got, err)
	}
}

func TestOptionErrors(t *testing.T) {
	dir := t.TempDir()
	policy := filepath.Join(dir, "policy.json")
	if err := os.WriteFile(policy, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		opt  Options
		env  string
		want string
	}{
		{opt: Options{Context: "nonsuch"}, want: "nonsuch"},
		{opt: Options{Platforms: []string{"a/b/c/d"}}, want: "--platform: "},
		{opt: Options{BuildContexts: map[string]string{"a": policy}}, want: "--build-context a: " + policy + " is not a folder"},
		{opt: Options{BuildContexts: map[string]string{"a": "oci-layout://" + dir}}, want: "--build-context a: "},
		{opt: Options{BuildContexts: map[string]string{"A": "x"}}, want: "--build-context A: invalid reference format"},
		{
			opt:  Options{BuildContexts: map[string]string{"busybox": "docker-image://a", "docker.io/library/busybox": "docker-image://b"}},
			want: "--build-context docker.io/library/busybox: another spelling of the name has a value too",
		},
		{opt: Options{CacheFrom: []string{"type=,x"}}, want: "--cache-from: "},
		{opt: Options{CacheTo: []string{"type=,x"}}, want: "--cache-to: "},
		{opt: Options{Secrets: []string{"src"}}, want: "--secret: "},
		{opt: Options{SSH: []string{"default=/nonsuch"}}, want: "--ssh: "},
		{env: policy, want: "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY: " + policy},
	} {
		t.Setenv("EXPERIMENTAL_BUILDKIT_SOURCE_POLICY", c.env)
		c.opt.File = "aws.yml"
		if _, err := c.opt.solveOpt(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: got %v, want %q", c.opt, err, c.want)
		}
	}
}

func TestCaches(t *testing.T) {
	so, err := Options{File: "aws.yml", CacheFrom: []string{"test/cache"}, CacheTo: []string{"type=inline"}}.solveOpt()
	if err != nil {
		t.Fatal(err)
	}
	want := []client.CacheOptionsEntry{{Type: "registry", Attrs: map[string]string{"ref": "test/cache"}}}
	if diff := cmp.Diff(want, so.CacheImports); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if len(so.CacheExports) != 1 || so.CacheExports[0].Type != "inline" {
		t.Errorf("exports %+v", so.CacheExports)
	}
}

// addImages writes an OCI image layout whose index has the tags, each a digest of
// its own.
func addImages(t *testing.T, dir string, tags ...string) {
	t.Helper()
	var manifests []string
	for i, tag := range tags {
		manifests = append(manifests, `{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":2,"digest":"`+layoutDigestOf(i)+
			`","annotations":{"org.opencontainers.image.ref.name":"`+tag+`"}}`)
	}
	for name, text := range map[string]string{
		"oci-layout": `{"imageLayoutVersion":"1.0.0"}`,
		"index.json": `{"schemaVersion":2,"manifests":[` + strings.Join(manifests, ",") + `]}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func layoutDigestOf(i int) string {
	return "sha256:" + strings.Repeat(string(rune('0'+i)), 64)
}

func TestBuildContexts(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	addImages(t, one, "v1")
	addImages(t, two, "v1", "v2")
	so := func(value string) (client.SolveOpt, string, error) {
		so, err := Options{File: "aws.yml", BuildContexts: map[string]string{"a": value}}.solveOpt()
		return so, so.FrontendAttrs["context:a"], err
	}
	for value, want := range map[string]string{
		"oci-layout://" + one:                                       layoutDigestOf(0), // the tag does not matter
		"oci-layout://" + two + ":v2":                               layoutDigestOf(1),
		"oci-layout://" + two + "@" + layoutDigestOf(5):             layoutDigestOf(5),
		"oci-layout://" + two + "/../" + filepath.Base(two) + ":v1": layoutDigestOf(0),
	} {
		so, attr, err := so(value)
		id, pinned, _ := strings.Cut(strings.TrimPrefix(attr, "oci-layout://"), "@")
		if err != nil || pinned != want || so.OCIStores[id] == nil {
			t.Errorf("%s: %q, %v", value, attr, err)
		}
	}
	if _, _, err := so("oci-layout://" + two); err == nil || !strings.Contains(err.Error(), "holds several images and none with tag latest: add :TAG or @DIGEST") {
		t.Errorf("an ambiguous layout: %v", err)
	}
	if so, attr, err := so(one); err != nil || attr != "local:context:a" || so.LocalMounts["context:a"] == nil {
		t.Errorf("a folder: %q, %v", attr, err)
	}
	for _, value := range []string{"docker-image://test/a:v1", "https://example.com/a.git", "git@example.com:a.git"} {
		if _, attr, err := so(value); err != nil || attr != value {
			t.Errorf("%s: %q, %v", value, attr, err)
		}
	}
}

func TestLocalMounts(t *testing.T) {
	if _, err := (Options{File: "machines/aws.yml", Context: "."}).solveOpt(); err == nil || !strings.Contains(err.Error(), "machines") {
		t.Errorf("a folder that does not exist: %v", err)
	}
	so, err := Options{File: "aws.yml", Context: "."}.solveOpt()
	if err != nil || len(so.LocalMounts) != 2 || so.LocalMounts["context"] == nil || so.LocalMounts["dockerfile"] == nil {
		t.Errorf("mounts %v, %v", so.LocalMounts, err)
	}
}

// Frontends look for one spelling of a name.
func TestContextNames(t *testing.T) {
	for _, name := range []string{"busybox", "busybox:latest", "library/busybox", "docker.io/library/busybox", "index.docker.io/library/busybox:latest"} {
		so, err := Options{File: "aws.yml", BuildContexts: map[string]string{name: "docker-image://test/a"}}.solveOpt()
		if err != nil || so.FrontendAttrs["context:busybox"] != "docker-image://test/a" {
			t.Errorf("%s: %v, %v", name, so.FrontendAttrs, err)
		}
	}
}
