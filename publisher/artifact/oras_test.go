package artifact_test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/slipway-build/slipway/internal/testutil/stack"
	"github.com/slipway-build/slipway/publisher/artifact"
)

// TestORAS checks with ORAS, another client for artifacts, what Push stores in
// the registry of the stack.
func TestORAS(t *testing.T) {
	stack.Require(t)
	program := stack.File(t, "oras")
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	oras := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(program, args...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("oras %s: %v: %s", strings.Join(args, " "), err, stderr.Bytes())
		}
		return string(out)
	}
	repo := stack.Registry + "/test/artifact"
	ref, err := artifact.ParseReference("oci://" + repo + ":v1")
	if err != nil {
		t.Fatal(err)
	}
	data := content(7, 13)
	pushed := push(t, ref, upload(open(t, "aws.raw", data), "amd64"), upload(open(t, "aws.raw", content(8, 2)), "arm64"))
	name := strings.TrimPrefix(pushed.String(), "oci://")

	dir := t.TempDir()
	oras("pull", "--plain-http", "--platform", "linux/amd64", "-o", dir, name)
	file, err := os.Open(filepath.Join(dir, "aws.raw.zst"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	plain, err := zstd.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if got, err := io.ReadAll(plain); err != nil || !bytes.Equal(got, data) {
		t.Errorf("oras pull: %d bytes, %v", len(got), err)
	}
	if manifest := oras("manifest", "fetch", "--plain-http", "--platform", "linux/arm64", name); !strings.Contains(manifest, `"artifactType":"`+artifact.TypeDisk+`"`) {
		t.Errorf("manifest: %s", manifest)
	}

	// A copy in another repository has the same digest.
	oras("copy", "--recursive", "--from-plain-http", "--to-plain-http", name, repo+"/copy:v2")
	copied, err := artifact.ParseReference("oci://" + repo + "/copy:v2")
	if err != nil {
		t.Fatal(err)
	}
	a, err := artifact.Open(t.Context(), copied, artifact.Choice{Architecture: "amd64"})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(io.NewSectionReader(a, 0, a.Size)); err != nil || !bytes.Equal(got, data) || !strings.HasSuffix(a.Reference.String(), name[strings.Index(name, "@"):]) {
		t.Errorf("%v: %d bytes, %v", a.Reference, len(got), err)
	}
	if err := artifact.Attach(t.Context(), pushed, attachments(t)); err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	if err := artifact.Sign(t.Context(), pushed, key); err != nil {
		t.Fatal(err)
	}
	tree := oras("discover", "--plain-http", name)
	for _, want := range []string{artifact.TypeSPDX, artifact.TypeInToto, artifact.TypeSignature} {
		if !strings.Contains(tree, want) {
			t.Errorf("oras discover does not show %s: %s", want, tree)
		}
	}
	// A copy with its referrers has the signature too.
	oras("copy", "--recursive", "--from-plain-http", "--to-plain-http", name, repo+"/signed:v1")
	if copied, err = artifact.ParseReference("oci://" + repo + "/signed:v1"); err != nil {
		t.Fatal(err)
	}
	if _, err := artifact.Verify(t.Context(), copied, &key.PublicKey); err != nil {
		t.Errorf("the copy: %v", err)
	}
}
