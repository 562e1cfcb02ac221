package client

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/client"
)

func TestParseOutputs(t *testing.T) {
	for value, want := range map[string]output{
		"out":                             {kind: "local", dest: "out"},
		"-":                               {kind: "tar", dest: "-"},
		"type=local,dest=out":             {kind: "local", dest: "out"},
		"type=oci,dest=a.tar,force=1":     {kind: "oci", dest: "a.tar", attrs: map[string]string{"force": "1"}},
		"type=oci,dest=dir,tar=false":     {kind: "oci", dest: "dir", attrs: map[string]string{"tar": "false"}},
		`type=image,"name=a,b",push=true`: {kind: "image", attrs: map[string]string{"name": "a,b", "push": "true"}},
	} {
		all, err := parseOutputs([]string{value})
		if err != nil {
			t.Errorf("%s: %v", value, err)
			continue
		}
		got := all[0]
		if got.kind != want.kind || got.dest != want.dest || len(got.attrs) != len(want.attrs) {
			t.Errorf("%s: got %+v", value, got)
		}
		for key, text := range want.attrs {
			if got.attrs[key] != text {
				t.Errorf("%s: %s is %q", value, key, got.attrs[key])
			}
		}
	}
	for value, want := range map[string]string{
		"dest=out":      "requires type=TYPE",
		"type=local":    "requires dest=DIR",
		"type=tar":      "requires dest=FILE",
		"type=oci,dest": `"dest" is not KEY=VALUE`,
	} {
		if _, err := parseOutputs([]string{value}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", value, err, want)
		}
	}
}

// names lists the files below a folder.
func names(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			name, _ := filepath.Rel(dir, path)
			out = append(out, name)
		}
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return out
}

// receive writes to an export as BuildKit does.
func receive(t *testing.T, e client.ExportEntry, name string) {
	t.Helper()
	if e.OutputDir != "" {
		name = filepath.Join(e.OutputDir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte("disk"), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	w, err := e.Output(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, "archive"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOutputsAreAtomic(t *testing.T) {
	dir := t.TempDir()
	folder, archive := filepath.Join(dir, "new", "out"), filepath.Join(dir, "m.tar")
	if err := os.WriteFile(archive, []byte("of an earlier build"), 0o644); err != nil {
		t.Fatal(err)
	}
	build := func() outputs {
		all, err := parseOutputs([]string{folder, "type=oci,dest=" + archive})
		if err != nil {
			t.Fatal(err)
		}
		entries, err := all.exports()
		if err != nil {
			t.Fatal(err)
		}
		receive(t, entries[0], "linux_amd64/m.raw")
		receive(t, entries[1], "")
		return all
	}

	build().discard()
	if got := names(t, dir); !slices.Equal(got, []string{"m.tar"}) {
		t.Errorf("a failed build left %q", got)
	}
	if _, err := os.Stat(folder); err == nil {
		t.Error("a failed build left its folder")
	}
	if data, _ := os.ReadFile(archive); string(data) != "of an earlier build" {
		t.Errorf("a failed build touched an earlier file: %q", data)
	}

	all := build()
	files, err := all.keep()
	all.discard()
	if err != nil {
		t.Fatal(err)
	}
	want := []File{{filepath.Join(folder, "linux_amd64/m.raw"), 4}, {archive, 7}}
	if !slices.Equal(files, want) {
		t.Errorf("got %v, want %v", files, want)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"m.tar", "new/out/linux_amd64/m.raw"}) {
		t.Errorf("the folders hold %q", got)
	}
}
