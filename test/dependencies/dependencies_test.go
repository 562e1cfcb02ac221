// Package dependencies checks the modules that Slipway's programs link.
package dependencies

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/licensecheck"
)

const root = "../.."

// TestReasons checks that docs/internals/dependencies.md has a reason for
// each direct dependency, and names no other module.
func TestReasons(t *testing.T) {
	out, err := goCommand("mod", "edit", "-json")
	if err != nil {
		t.Fatal(err)
	}
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, r := range mod.Require {
		if !r.Indirect {
			want = append(want, r.Path)
		}
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "internals", "dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| \\S.* \\|$").FindAllSubmatch(page, -1) {
		got = append(got, string(row[1]))
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docs/internals/dependencies.md (-go.mod +page):\n%s", diff)
	}
}

// allowed are the licenses of modules that a program under Apache-2.0 can link.
var allowed = []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MPL-2.0"}

// chosen maps modules that offer several licenses to the one that Slipway uses.
var chosen = map[string]string{"github.com/spdx/tools-golang": "Apache-2.0"} // or GPL-2.0-or-later

// TestLicenses checks the license of each module that a program links.
func TestLicenses(t *testing.T) {
	out, err := goCommand("list", "-deps", "-json=Module", "./cmd/...", "./guest/...")
	if err != nil {
		t.Fatal(err)
	}
	dirs := map[string]string{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			Module *struct {
				Path, Dir string
				Main      bool
			}
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if p.Module != nil && !p.Module.Main {
			dirs[p.Module.Path] = p.Module.Dir
		}
	}
	if len(dirs) < 50 {
		t.Fatalf("go list found only %d modules", len(dirs))
	}
	for _, module := range slices.Sorted(maps.Keys(dirs)) {
		licenses, err := licensesOf(dirs[module])
		if err != nil {
			t.Errorf("%s: %v", module, err)
		}
		if license := chosen[module]; slices.Contains(licenses, license) {
			licenses = []string{license}
		}
		if len(licenses) == 0 {
			t.Errorf("%s: no license found", module)
		}
		for _, license := range licenses {
			if !slices.Contains(allowed, license) {
				t.Errorf("%s has the license %s, which is not one of %q", module, license, allowed)
			}
		}
	}
}

// licensesOf returns the SPDX identifiers of the license files in a module's
// root directory.
func licensesOf(dir string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "[Ll][Ii][Cc][Ee][Nn][SsCc][Ee]*"))
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, name := range append(files, filepath.Join(dir, "COPYING")) {
		info, err := os.Stat(name)
		if errors.Is(err, os.ErrNotExist) || err == nil && info.IsDir() || strings.HasSuffix(name, ".docs") {
			continue // documentation can have another license
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		for _, match := range licensecheck.Scan(text).Match {
			ids = append(ids, match.ID)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

func goCommand(args ...string) ([]byte, error) {
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	cmd.Stderr = os.Stderr
	return cmd.Output()
}
