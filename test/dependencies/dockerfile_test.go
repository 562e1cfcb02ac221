package dependencies

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/slipway-build/slipway/"

// TestDockerfile checks that the Dockerfile of the frontend copies all packages
// that its programs link, and no folder without one. A missing one fails the
// build of the image.
func TestDockerfile(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	programs := regexp.MustCompile(`\./cmd/\S+`).FindAllString(string(text), -1)
	if len(programs) < 4 {
		t.Fatalf("the Dockerfile builds only %q", programs)
	}
	var copied []string
	for _, m := range regexp.MustCompile(`(?m)^COPY (\S+) (\S+)$`).FindAllStringSubmatch(string(text), -1) {
		if m[1] == m[2] {
			copied = append(copied, m[1])
		}
	}
	out, err := goCommand(append([]string{"list", "-deps"}, programs...)...)
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		dir, ok := strings.CutPrefix(strings.TrimSpace(line), module)
		if !ok {
			continue
		}
		i := slices.IndexFunc(copied, func(c string) bool { return dir == c || strings.HasPrefix(dir, c+"/") })
		if i < 0 {
			t.Errorf("the Dockerfile does not copy %s", dir)
			continue
		}
		used[copied[i]] = true
	}
	for _, dir := range copied {
		if !used[dir] {
			t.Errorf("the Dockerfile copies %s, which its programs do not link", dir)
		}
	}
}
