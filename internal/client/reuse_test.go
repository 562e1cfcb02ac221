package client

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/internal/gatewaytest"
)

// newGateway returns a gateway with a machine of one image.
func newGateway(t *testing.T) *gatewaytest.Gateway {
	t.Helper()
	g := gatewaytest.New(t, "aws.yml", "init:\n  - slipwaybuild/init:v1\n")
	for _, name := range []string{"slipway:1", "init:v1"} {
		g.Images["docker.io/slipwaybuild/"+name] = gatewaytest.NewImage(name, ocispecs.ImageConfig{})
	}
	return g
}

// run builds with a gateway and returns what it reuses. If there is nothing to
// reuse, it writes the file of the build.
func run(t *testing.T, g *gatewaytest.Gateway, folder string) []File {
	t.Helper()
	r := reuse{folder: folder}
	res, err := r.build(t.Context(), g)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := res.SingleRef()
	if empty := err != nil || ref == nil; empty != (r.files != nil) {
		t.Fatalf("result %v with files %v", ref, r.files)
	}
	if r.files != nil {
		return r.files
	}
	path := filepath.Join(folder, "aws.raw")
	if err := os.WriteFile(path, []byte("disk"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := r.record([]File{{path, 4}}); err != nil {
		t.Fatal(err)
	}
	return nil
}

func TestReuse(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "aws.raw")
	want := []File{{path, 4}}
	g := newGateway(t)
	if got := run(t, g, dir); got != nil {
		t.Fatalf("the first build reuses %v", got)
	}
	if got := run(t, g, dir); !slices.Equal(got, want) {
		t.Errorf("the second build reuses %v", got)
	}
	executed := 0
	for _, req := range g.Solved() {
		if req.Evaluate {
			executed++
		}
	}
	if executed != 1 {
		t.Errorf("two builds execute their graph %d times, want once", executed)
	}
	for name, change := range map[string]func(*gatewaytest.Gateway) error{
		"size": func(*gatewaytest.Gateway) error {
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			if err := os.Truncate(path, 3); err != nil {
				return err
			}
			return os.Chtimes(path, time.Time{}, info.ModTime())
		},
		"time":     func(*gatewaytest.Gateway) error { return os.Chtimes(path, time.Time{}, time.Unix(1, 0)) },
		"contents": func(*gatewaytest.Gateway) error { return os.WriteFile(path, []byte("else"), 0o644) },
		"file":     func(*gatewaytest.Gateway) error { return os.Remove(path) },
		"link": func(*gatewaytest.Gateway) error {
			if err := os.Rename(path, path+".old"); err != nil {
				return err
			}
			return os.Symlink(path+".old", path)
		},
		"machine": func(g *gatewaytest.Gateway) error {
			g.Opts["build-arg:COMPRESSION"] = "gzip"
			return nil
		},
		"image": func(g *gatewaytest.Gateway) error {
			g.Images["docker.io/slipwaybuild/init:v1"] = gatewaytest.NewImage("new", ocispecs.ImageConfig{})
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			g := newGateway(t)
			run(t, g, dir)
			if err := change(g); err != nil {
				t.Fatal(err)
			}
			if got := run(t, g, dir); got != nil {
				t.Errorf("reuses %v", got)
			}
		})
	}
}

// A graph that reads files of the client may write other files each time.
func TestNoReuseOfLocalFiles(t *testing.T) {
	dir := t.TempDir()
	g := newGateway(t)
	g.Locals["own"] = gatewaytest.Files{"bin/sh": "sh"}
	g.Opts["context:slipwaybuild/init:v1"] = "local:own"
	run(t, g, dir)
	if got := run(t, g, dir); got != nil {
		t.Errorf("reuses %v", got)
	}
}

func TestReusableFolder(t *testing.T) {
	for name, c := range map[string]struct {
		opt  Options
		want string
	}{
		"folder":      {Options{Outputs: []string{"out"}}, "out"},
		"archive":     {Options{Outputs: []string{"-"}}, ""},
		"two":         {Options{Outputs: []string{"out", "other"}}, ""},
		"attributes":  {Options{Outputs: []string{"type=local,dest=out,platform-split=true"}}, ""},
		"cache":       {Options{Outputs: []string{"out"}, CacheTo: []string{"x"}}, ""},
		"attestation": {Options{Outputs: []string{"out"}, Attests: map[string]string{"sbom": ""}}, ""},
		"no cache":    {Options{Outputs: []string{"out"}, NoCache: true}, ""},
		"filter":      {Options{Outputs: []string{"out"}, NoCacheFilter: []string{"kernel"}}, ""},
	} {
		all, err := parseOutputs([]string{"out"})
		if name == "archive" {
			all = outputs{{kind: "tar", dest: "-"}}
		} else if err == nil {
			all, err = parseOutputs(c.opt.Outputs)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := c.opt.reusableFolder(all); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
