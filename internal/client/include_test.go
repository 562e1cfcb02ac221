package client

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestIncludes checks that the inputs of a build contain what its files include,
// with args, and that an include does not lead out of the folder.
func TestIncludes(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside.yml")
	dir := t.TempDir()
	for name, text := range map[string]string{
		filepath.Join(dir, "machine.yml"):      "args: [{name: WHICH, default: none}]\ninclude: [{file: 'parts/${WHICH}.yml'}, {file: link.yml}]\n",
		filepath.Join(dir, "parts", "one.yml"): "files: [{path: a, source: '${WHICH}.txt'}]\n",
		outside:                                "files: [{path: b, source: secret.txt}]\n",
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link.yml")); err != nil {
		t.Fatal(err)
	}
	o := Options{File: filepath.Join(dir, "machine.yml"), Context: dir, BuildArgs: map[string]string{"WHICH": "one"}}
	inputs := o.Inputs()
	for _, name := range []string{"machine.yml", "parts/one.yml", "one.txt"} {
		if !slices.Contains(inputs, filepath.Join(dir, name)) {
			t.Errorf("the inputs %q lack %s", inputs, name)
		}
	}
	if slices.Contains(inputs, filepath.Join(dir, "secret.txt")) {
		t.Errorf("the inputs %q contain a file that is named outside of the folder", inputs)
	}
}
