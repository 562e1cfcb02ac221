package test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/stack"
)

// TestRepublish publishes the machine of examples/aws.yml, and again with little changed: only the blocks of that go to
// AWS, and few with tables and ids. docs/internals/measurements.md has what it logs.
func TestRepublish(t *testing.T) {
	stack.Require(t)
	yaml, err := os.ReadFile("../examples/aws.yml")
	if err != nil {
		t.Fatal(err)
	}
	machine := func(yaml string, args ...string) string {
		dir := t.TempDir()
		write(t, dir, map[string]string{"aws.yml": yaml})
		args = append([]string{"-f", "aws.yml", "--target=raw", "--build-arg=SIZE=100M", "-o", "."}, args...)
		if _, stderr, err := stack.Buildx(dir, append(args, ".")...); err != nil {
			t.Fatal(stderr)
		}
		return filepath.Join(dir, "aws.raw")
	}
	// changed is the machine with another version of a package: another file, the first in its segment, changes all of that.
	changed := func(name string) string {
		dir, ref := t.TempDir(), stack.Registry+"/test/republish/"+name+":v1"
		write(t, dir, map[string]string{"Dockerfile": "FROM slipwaybuild/" + name + ":v1\nCOPY <<EOF /.version\n2\nEOF\n"})
		if _, stderr, err := stack.Buildx(dir, "-o", "type=registry", "-t", ref, "."); err != nil {
			t.Fatal(stderr)
		}
		return machine(string(yaml), "--build-context=slipwaybuild/"+name+":v1=docker-image://"+ref)
	}

	base := machine(string(yaml))
	const tables = 5 // blocks with tables and ids, at most
	for _, c := range []struct {
		what, disk string
		most       int // blocks
	}{
		{"nothing", machine(string(yaml)), 0},
		{"the kernel's command line", machine(strings.Replace(string(yaml), `"console=ttyS0"`, `"console=ttyS0 quiet"`, 1)), tables},
		{"a service, rngd", changed("rngd"), tables + 2}, // as large as their segments
		{"a part of the base, runc", changed("runc"), tables + 10},
	} {
		t.Run(c.what, func(t *testing.T) {
			a := newAccount(t)
			first := a.publish(t, base, "--name=first")
			second := a.publish(t, c.disk, "--name=second", "--parent=auto")
			written := 0
			if second.Blocks != nil {
				written = second.Blocks.Written
			} else if second.Snapshot != first.Snapshot {
				t.Errorf("no blocks were written, but the snapshot is another one: %s", second.Snapshot)
			}
			t.Logf("%d of %d blocks, at first %d", written, first.Blocks.Total, first.Blocks.Written)
			if written > c.most {
				t.Errorf("%d blocks were written, want %d at most", written, c.most)
			}
			published, err := os.ReadFile(a.save(t, second))
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(c.disk)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(published[:len(want)], want) {
				t.Error("the snapshot is not the disk")
			}
		})
	}
}
