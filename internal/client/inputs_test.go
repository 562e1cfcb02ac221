package client

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	someDigest  = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	otherDigest = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// inputFolder returns the options for a machine whose images have digests, with
// an overlay and files of the build context.
func inputFolder(t *testing.T) Options {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"aws.yml": "# syntax=slipwaybuild/slipway:1@" + someDigest + "\ninit:\n  - slipwaybuild/init:v1@" + someDigest +
			"\ninclude:\n  - file: part.yml\nargs:\n  - name: HOST\n    default: box\nfiles:\n  - path: etc/motd\n    source: motd\n  - path: etc/other\n    source: other\n    optional: true\n",
		"more.yml": "onboot:\n  - name: more\n    image: slipwaybuild/sysctl:v1@" + someDigest + "\n",
		"part.yml": "files:\n  - path: etc/part\n    contents: part\n",
		"motd":     "hello",
	} {
		writeInput(t, dir, name, text)
	}
	return Options{
		File: filepath.Join(dir, "aws.yml"), Context: dir,
		BuildArgs: map[string]string{"OVERLAYS": "more.yml"},
	}
}

func writeInput(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func testWorkers() []*client.WorkerInfo {
	return []*client.WorkerInfo{{
		ID: "id", Labels: map[string]string{"executor": "oci"},
		Platforms:       []ocispecs.Platform{{OS: "linux", Architecture: "amd64"}},
		BuildkitVersion: client.BuildkitVersion{Version: "v0.31.2"},
	}}
}

// Whatever a build can depend on changes the digest of its inputs.
func TestInputDigest(t *testing.T) {
	self := program{"1.2.3", 100, time.Unix(1, 0)}
	digest := func(t *testing.T, o Options, self program, workers []*client.WorkerInfo) string {
		t.Helper()
		files, err := o.inputFiles()
		if err != nil {
			t.Fatal(err)
		}
		return o.digest(self, workers, files)
	}
	replace := func(name, old, text string) func(*testing.T, *Options) {
		return func(t *testing.T, o *Options) {
			data, err := os.ReadFile(filepath.Join(o.Context, name))
			if err != nil || !strings.Contains(string(data), old) {
				t.Fatalf("%s has no %q: %v", name, old, err)
			}
			writeInput(t, o.Context, name, strings.Replace(string(data), old, text, 1))
		}
	}
	create := func(name, text string) func(*testing.T, *Options) {
		return func(t *testing.T, o *Options) { writeInput(t, o.Context, name, text) }
	}
	lock := "version: 1\nimages:\n"
	for _, name := range []string{"slipwaybuild/slipway:1", "slipwaybuild/init:v1", "slipwaybuild/sysctl:v1"} {
		lock += "  " + name + "@" + someDigest + ": " + someDigest + "\n"
	}
	for name, change := range map[string]func(*testing.T, *Options){
		"file of the context":          replace("motd", "hello", "hellO"),
		"optional file":                create("other", ""),
		"machine":                      replace("aws.yml", "etc/motd", "etc/Motd"),
		"image":                        replace("aws.yml", "init:v1@"+someDigest, "init:v1@"+otherDigest),
		"frontend":                     replace("aws.yml", "slipway:1@"+someDigest, "slipway:1@"+otherDigest),
		"include":                      replace("part.yml", "contents: part", "contents: Part"),
		"argument of the machine":      func(_ *testing.T, o *Options) { o.BuildArgs["HOST"] = "other" },
		"overlay":                      replace("more.yml", "name: more", "name: most"),
		"lock":                         create("aws.lock.yml", lock),
		"ignored files":                create(".dockerignore", "motd"),
		"ignored files of the machine": create("aws.yml.dockerignore", "motd"),
		"format":                       func(_ *testing.T, o *Options) { o.Target = "raw" },
		"platform":                     func(_ *testing.T, o *Options) { o.Platforms = []string{"linux/arm64"} },
		"cache":                        func(_ *testing.T, o *Options) { o.CacheFrom = []string{"type=local,src=x"} },
		"argument":                     func(_ *testing.T, o *Options) { o.BuildArgs["SIZE"] = "1G" },
		"time":                         func(_ *testing.T, o *Options) { o.BuildArgs["SOURCE_DATE_EPOCH"] = "1" },
		"name": func(t *testing.T, o *Options) {
			name := filepath.Join(o.Context, "other.yml")
			if err := os.Rename(o.File, name); err != nil {
				t.Fatal(err)
			}
			o.File = name
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := inputFolder(t)
			before := digest(t, o, self, testWorkers())
			if again := digest(t, o, self, testWorkers()); again != before {
				t.Error("the digest changes without a change")
			}
			o.BuildArgs = maps.Clone(o.BuildArgs)
			change(t, &o)
			if digest(t, o, self, testWorkers()) == before {
				t.Error("the digest is the same")
			}
		})
	}
	o := inputFolder(t)
	before := digest(t, o, self, testWorkers())
	for name, change := range map[string]func(*client.WorkerInfo){
		"id":       func(w *client.WorkerInfo) { w.ID = "other" },
		"labels":   func(w *client.WorkerInfo) { w.Labels["executor"] = "containerd" },
		"platform": func(w *client.WorkerInfo) { w.Platforms[0].Architecture = "arm64" },
		"version":  func(w *client.WorkerInfo) { w.BuildkitVersion.Version = "v0.31.3" },
	} {
		workers := testWorkers()
		change(workers[0])
		if digest(t, o, self, workers) == before {
			t.Errorf("another %s of the builder has the same digest", name)
		}
	}
	for _, other := range []program{{"1.2.4", self.Size, self.MTime}, {self.Version, 101, self.MTime}, {self.Version, self.Size, time.Unix(2, 0)}} {
		if digest(t, o, other, testWorkers()) == before {
			t.Errorf("program %v has the same digest", other)
		}
	}
}

// BuildKit is asked if not everything that a build depends on is known here.
func TestNoInputDigest(t *testing.T) {
	t.Setenv(sourcePolicyVariable, "")
	yml := func(text string) func(*testing.T, *Options) {
		return func(t *testing.T, o *Options) {
			writeInput(t, o.Context, "aws.yml", "# syntax=slipwaybuild/slipway:1@"+someDigest+"\n"+text)
		}
	}
	for name, change := range map[string]func(*testing.T, *Options){
		"tag": yml("init:\n  - slipwaybuild/init:v1\n"),
		"frontend": func(t *testing.T, o *Options) {
			writeInput(t, o.Context, "aws.yml", "# syntax=slipwaybuild/slipway:1\ninit:\n  - slipwaybuild/init:v1@"+someDigest+"\n")
		},
		"no frontend": func(t *testing.T, o *Options) {
			writeInput(t, o.Context, "aws.yml", "init:\n  - slipwaybuild/init:v1@"+someDigest+"\n")
		},
		"missing include": yml("include:\n  - file: none.yml\n"),
		"volume":          yml("volumes:\n  - name: v\n    image: slipwaybuild/init:v1\n"),
		"package folder":  yml("init:\n  - \"@pkg:own\"\n"),
		"secret":          yml("files:\n  - path: key\n    secret: key\n"),
		"host":            yml("files:\n  - path: key\n    source: /etc/hostname\n"),
		"home":            yml("files:\n  - path: key\n    source: ~/key\n    optional: true\n"),
		"folder":          yml("files:\n  - path: key\n    source: .\n"),
		"link": func(t *testing.T, o *Options) {
			yml("files:\n  - path: key\n    source: link\n")(t, o)
			if err := os.Symlink("motd", filepath.Join(o.Context, "link")); err != nil {
				t.Fatal(err)
			}
		},
		"lock without an image": func(t *testing.T, o *Options) {
			writeInput(t, o.Context, "aws.lock.yml", "version: 1\nimages:\n  slipwaybuild/slipway:1@"+someDigest+": "+someDigest+"\n")
		},
		"invalid lock": func(t *testing.T, o *Options) { writeInput(t, o.Context, "aws.lock.yml", "version: 2\n") },
	} {
		t.Run(name, func(t *testing.T) {
			o := inputFolder(t)
			change(t, &o)
			if files, err := o.inputFiles(); err == nil {
				t.Errorf("the build depends on %v alone", files)
			}
		})
	}
	for name, change := range map[string]func(*Options){
		"named context": func(o *Options) { o.BuildContexts = map[string]string{"a": "docker-image://b"} },
		"secrets":       func(o *Options) { o.Secrets = []string{"id=a,src=b"} },
		"agents":        func(o *Options) { o.SSH = []string{"default"} },
		"pull":          func(o *Options) { o.Pull = true },
		"platforms":     func(o *Options) { o.Platforms = []string{"linux/amd64", "linux/arm64"} },
		"source policy": func(*Options) { t.Setenv(sourcePolicyVariable, "policy.json") },
	} {
		o := inputFolder(t)
		change(&o)
		if d := o.inputDigest(t.Context(), nil); d != "" { // the builder is not asked
			t.Errorf("%s: digest %s", name, d)
		}
		t.Setenv(sourcePolicyVariable, "")
	}
}

// BenchmarkInputs measures what a build of an unchanged machine with digests
// does, besides asking the builder for its platform.
func BenchmarkInputs(b *testing.B) {
	for _, count := range []int{10, 500} {
		b.Run(fmt.Sprintf("%d components", count), func(b *testing.B) {
			dir := b.TempDir()
			yml := "# syntax=slipwaybuild/slipway:1@" + someDigest + "\nservices:\n"
			for i := range count {
				yml += fmt.Sprintf("  - name: s%d\n    image: slipwaybuild/s%d:v1@%s\n", i, i, someDigest)
			}
			if err := os.WriteFile(filepath.Join(dir, "m.yml"), []byte(yml), 0o644); err != nil {
				b.Fatal(err)
			}
			o := Options{File: filepath.Join(dir, "m.yml"), Context: dir}
			for b.Loop() {
				files, err := o.inputFiles()
				if err != nil || o.digest(program{}, testWorkers(), files) == "" {
					b.Fatal(err)
				}
			}
		})
	}
}
