package test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/internal/testutil/stack"
)

// conformance is a corpus of machine YAML and of what LinuxKit builds from it.
const conformance = "conformance/testdata"

type conformanceCase struct {
	Title  string   `json:"title"`
	Inputs []string `json:"inputs"`
	Arch   string   `json:"arch"`
	OK     bool     `json:"ok"`
}

// Each case of the corpus builds to the expected tree, or fails with the
// expected texts in its error message.
func TestConformance(t *testing.T) {
	stack.Require(t)
	contexts := corpusContexts(t)
	folders, err := filepath.Glob(filepath.Join(conformance, "cases", "*"))
	if err != nil || len(folders) == 0 {
		t.Fatal("no cases", err)
	}
	for _, folder := range folders {
		name := filepath.Base(folder)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var c conformanceCase
			data, err := os.ReadFile(filepath.Join(folder, "expected.json"))
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(data, &c); err != nil {
				t.Fatal(err)
			}
			out := t.TempDir()
			args := append([]string{
				"--build-arg=BUILDKIT_DOCKERFILE_CHECK=skip=NeverStarts", // images of the corpus have no programs
				"--progress=plain", "--build-arg=BUILDKIT_SYNTAX=slipwaybuild/slipway:1", "--build-arg=NAME=tree",
				"--build-arg=OVERLAYS=" + strings.Join(c.Inputs[1:], ","),
				"--platform=linux/" + c.Arch, "--target=tar", "-f", c.Inputs[0], "-o", out,
			}, contexts...)
			_, stderr, err := stack.Buildx(folder, append(args, ".")...)
			result := filepath.Join(out, "tree.tar")
			if !c.OK {
				if err == nil {
					t.Fatalf("%s: the build succeeded", c.Title)
				}
				if _, err := os.Stat(result); err == nil {
					t.Error("the failed build left its output")
				}
				message := filepath.Join(t.TempDir(), "message.txt")
				if err := os.WriteFile(message, []byte(stderr), 0o644); err != nil {
					t.Fatal(err)
				}
				compare(t, "--line", "--errors", conformance, name[:3], message)
				return
			}
			if err != nil {
				t.Fatalf("%s: %v\n%s", c.Title, err, stderr)
			}
			compare(t, conformance, name[:3], result)
		})
	}
}

func compare(t *testing.T, args ...string) {
	t.Helper()
	out, err := exec.Command("python3", append([]string{filepath.Join(conformance, "compare.py")}, args...)...).CombinedOutput()
	if err != nil {
		t.Errorf("compare: %v\n%s", err, out)
	}
}

// corpusContexts returns the arguments of a build that provide each image of
// the corpus under its name.
func corpusContexts(t *testing.T) []string {
	t.Helper()
	layout, err := filepath.Abs(filepath.Join(conformance, "images"))
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(layout, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index ocispecs.Index
	if err := json.Unmarshal(data, &index); err != nil {
		t.Fatal(err)
	}
	var args []string
	for _, m := range index.Manifests {
		name := m.Annotations[ocispecs.AnnotationRefName]
		args = append(args, "--build-context="+name+"=oci-layout://"+layout+"@"+m.Digest.String())
	}
	return args
}
