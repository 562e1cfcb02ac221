package frontend

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	lintreq "github.com/moby/buildkit/frontend/subrequests/lint"
	"github.com/moby/buildkit/solver/errdefs"
)

// manyFiles returns a machine with n files.
func manyFiles(n int) string {
	var b strings.Builder
	b.WriteString("init:\n  - slipwaybuild/init:v1\nfiles:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - {path: etc/d/%d, contents: x}\n", i)
	}
	return b.String()
}

// manyServices returns a machine with n services of one image, each with more
// keys.
func manyServices(n int, keys string) string {
	var b strings.Builder
	b.WriteString("services:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - {name: s%d, image: slipwaybuild/rngd:v1%s}\n", i, keys)
	}
	return b.String()
}

// The graph of a large machine fits in a message, which the gateway checks, and
// takes seconds. The packer gets what is too large for the graph in compressed
// form.
func TestLargeMachines(t *testing.T) {
	for _, c := range []struct {
		name, yaml, target, arg string
		packed                  string // what the packer packs
	}{
		{name: "files, tar", yaml: manyFiles(20_000), target: "tar", packed: "[files] pack 20000 entries"},
		{name: "files, cpio", yaml: manyFiles(20_000), target: "initrd"},
		{name: "files, uncompressed", yaml: manyFiles(20_000), target: "initrd", arg: "none", packed: "[files] pack 20000 entries"},
		{name: "4,000 services", yaml: manyServices(4_000, ""), target: "tar", packed: "[configuration] pack 16000 entries"},
		{name: "20,000 services", yaml: manyServices(20_000, ""), target: "tar", packed: "[configuration] pack 80000 entries"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGateway(t, strings.Replace(c.yaml, "init:", "kernel:\n  image: slipwaybuild/kernel:v1\ninit:", 1))
			g.Opts["target"] = strings.Replace(c.target, "initrd", "kernel+initrd", 1)
			if c.arg != "" {
				g.Opts["build-arg:COMPRESSION"] = c.arg
			}
			start := time.Now()
			mustBuild(t, g)
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("took %v", took)
			}
			graph := onlyGraph(t, g)
			names := strings.Join(graph.names, "\n")
			if c.packed != "" && !strings.Contains(names, c.packed) || c.packed == "" && strings.Contains(names, "pack 20000") {
				t.Errorf("vertices:\n%s\nwant %q", names, c.packed)
			}
			if args := graph.exec("/slipway-packer entries"); len(flag(args, "--source")) > 0 {
				t.Errorf("the packer gets a directory of sources that does not exist: %q", args)
			}
			if strings.Contains(c.name, "services") && !strings.HasPrefix(graph.mkfiles()["entries.json"], "\x28\xb5\x2f\xfd") {
				t.Error("the entries are not compressed")
			}
		})
	}
}

// What does not fit even when it is compressed is one error at the file that
// takes the most space.
func TestTooLargeMachine(t *testing.T) {
	random := make([]byte, 9<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(random)
	text := base64.StdEncoding.EncodeToString(random)[:10<<20]
	g := newGateway(t, "init:\n  - slipwaybuild/init:v1\nfiles:\n  - {path: small, contents: x}\n  - {path: large, contents: \""+text+"\"}\n")
	g.Opts["target"] = "tar"
	_, err := Build(t.Context(), g)
	want := "aws.yml:5: the machine YAML and what is generated from it take 20."
	if err == nil || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), "move the contents of large files into the build context (source)") {
		t.Errorf("error %.300v, want %q", err, want)
	}
	if sources := errdefs.Sources(err); len(sources) > 0 {
		t.Error("the error transmits the YAML, which is too large")
	}
}

// Warnings and errors are bounded, because BuildKit transmits the YAML with each.
func TestManyDiagnostics(t *testing.T) {
	warned := manyServices(4_000, ", capabilities: [all]")
	g := newGateway(t, warned)
	mustBuild(t, g)
	if got := warnings(g); len(got) != maxShown || !strings.Contains(got[maxShown-1], "(and 3900 more warnings)") {
		t.Errorf("%d warnings, the last one %q", len(got), got[len(got)-1])
	}
	g = newGateway(t, warned)
	var results lintreq.LintResults
	call(t, g, "frontend.lint", &results)
	if len(results.Warnings) != maxShown {
		t.Errorf("%d warnings of the check", len(results.Warnings))
	}

	_, err := Build(t.Context(), newGateway(t, manyServices(4_000, ", uid: nobody")))
	if got := strings.Split(err.Error(), "\n"); len(got) != maxErrors+1 || got[maxErrors] != "3000 more errors" {
		t.Errorf("%d lines, the last one %q", len(got), got[len(got)-1])
	}
	size := 0
	for _, s := range errdefs.Sources(err) {
		size += len(s.Info.Data)
	}
	if size == 0 || size > maxExcerpts {
		t.Errorf("the excerpts take %d bytes", size)
	}
}

// The plan of a large machine is complete, or an error if it cannot be
// transmitted.
func TestLargePlans(t *testing.T) {
	g := newGateway(t, manyServices(4_000, ""))
	var plan planReport
	call(t, g, "frontend.machine.plan", &plan)
	if n := len(plan.Containers); n != 4_000 || plan.Containers[n-1].Runtime == nil {
		t.Errorf("%d containers", n)
	}
	g = newGateway(t, manyServices(20_000, ""))
	g.Opts["requestid"] = "frontend.machine.plan"
	_, err := Build(t.Context(), g)
	if want := "the answer takes "; err == nil || !strings.HasPrefix(err.Error(), want) || !strings.HasSuffix(err.Error(), "of which BuildKit transmits 15.94MiB") {
		t.Errorf("error %v, want %q", err, want)
	}
}
