package test

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/stack"
)

// TestPackagesGainNothing checks that no program in a package raises the
// privileges of its user with setuid, setgid or file capabilities. The packages
// docker and kubelet, which take minutes to compile, require -boot.
func TestPackagesGainNothing(t *testing.T) {
	stack.Require(t)
	group := "test-images"
	if *bootAll {
		group = "packages"
	}
	print := exec.Command("docker", "buildx", "bake", "--print", group)
	print.Dir = ".."
	text, err := print.Output()
	if err != nil {
		t.Fatal(err)
	}
	var bake struct{ Target map[string]any }
	if err := json.Unmarshal(text, &bake); err != nil {
		t.Fatal(err)
	}
	delete(bake.Target, "frontend")
	dockerfile := "FROM scratch\n"
	for name := range bake.Target {
		dockerfile += fmt.Sprintf("COPY --from=slipwaybuild/%s:v1 / /%[1]s/\n", name)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, stderr, err := stack.Buildx(dir, "-o", "type=tar,dest=all.tar", "."); err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
	all, err := os.Open(filepath.Join(dir, "all.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	programs := map[string]int{}
	for files := tar.NewReader(all); ; {
		file, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if file.Typeflag != tar.TypeReg {
			continue
		}
		name, _, _ := strings.Cut(file.Name, "/")
		programs[name]++
		if _, capable := file.PAXRecords["SCHILY.xattr.security.capability"]; capable || file.Mode&0o6000 != 0 {
			t.Errorf("%s: mode %04o, capabilities %t", file.Name, file.Mode, capable)
		}
	}
	for name := range bake.Target {
		if programs[name] == 0 {
			t.Errorf("%s: no files", name)
		}
	}
}
