package test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/stack"
)

// TestRepublish publishes the machine of examples/aws.yml, and again after a
// small change. The second upload contains only the changed blocks, and a few
// with partition tables and IDs. The logged numbers are in
// docs/internals/measurements.md.
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
	// changed builds the machine with another version of a package. It has an
	// additional file at the start of its segment, which changes the whole
	// segment.
	changed := func(name string) string {
		dir, ref := t.TempDir(), stack.Registry+"/test/republish/"+name+":v1"
		write(t, dir, map[string]string{"Dockerfile": "FROM slipwaybuild/" + name + ":v1\nCOPY <<EOF /.version\n2\nEOF\n"})
		if _, stderr, err := stack.Buildx(dir, "-o", "type=registry", "-t", ref, "."); err != nil {
			t.Fatal(stderr)
		}
		return machine(string(yaml), "--build-context=slipwaybuild/"+name+":v1=docker-image://"+ref)
	}

	base := machine(string(yaml))
	const tables = 5 // at most so many blocks with partition tables and IDs
	for _, c := range []struct {
		what, disk string
		most       int // at most so many blocks
	}{
		{"nothing", machine(string(yaml)), 0},
		{"the kernel's command line", machine(strings.Replace(string(yaml), `"console=ttyS0,115200n8 `, `"console=ttyS0,115200n8 quiet `, 1)), tables},
		{"a service, rngd", changed("rngd"), tables + 2}, // the blocks of its segment
		{"an init image, runc", changed("runc"), tables + 10},
	} {
		t.Run(c.what, func(t *testing.T) {
			a := newAccount(t)
			first := a.publish(t, base, "--name=first")
			second := a.publish(t, c.disk, "--name=second", "--parent=auto")
			written := 0
			if second.Blocks != nil {
				written = second.Blocks.Written
			} else if second.Snapshot != first.Snapshot {
				t.Errorf("no blocks were written, but the snapshot is not the first one: %s", second.Snapshot)
			}
			t.Logf("%d of %d blocks, %d at first", written, first.Blocks.Total, first.Blocks.Written)
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
				t.Error("the snapshot differs from the disk")
			}
		})
	}
}
