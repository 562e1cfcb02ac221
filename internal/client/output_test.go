package client

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/slipway-build/slipway/internal/testutil/need"

	"github.com/moby/buildkit/client"
)

func TestParseOutputs(t *testing.T) {
	for value, want := range map[string]output{
		"out":                         {kind: "local", dest: "out"},
		"-":                           {kind: "tar", dest: "-"},
		"type=local,dest=out":         {kind: "local", dest: "out"},
		"type=oci,dest=a.tar,force=1": {kind: "oci", dest: "a.tar", attrs: map[string]string{"force": "1"}},
		"type=oci,dest=dir,tar=false": {kind: "oci", dest: "dir", attrs: map[string]string{"tar": "false"}},
		`type=image,"name=a,b:v1",push=true`: {kind: "image", attrs: map[string]string{
			"name": "docker.io/library/a:latest,docker.io/library/b:v1", "push": "true"}},
		"type=registry,name=localhost:5000/a": {kind: "image", attrs: map[string]string{"name": "localhost:5000/a:latest", "push": "true"}},
		"type=docker,name=a":                  {kind: "docker", attrs: map[string]string{"name": "docker.io/library/a:latest"}},
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
		"dest=out":          "requires type=TYPE",
		"type=local":        "requires dest=DIR",
		"type=tar":          "requires dest=FILE",
		"type=image,name=A": `name "A": invalid reference format`,
		"type=oci,dest":     `"dest" is not KEY=VALUE`,

		"type=tar,dest=../client": "../client is a folder: requires dest=FILE",
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
		entries, err := all.exports(t.Context(), func() bool { return false })
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

// export stages the tree that write makes and moves it into folder.
func export(t *testing.T, folder string, write func(staging string) error) ([]File, error) {
	t.Helper()
	all, err := parseOutputs([]string{folder})
	if err != nil {
		t.Fatal(err)
	}
	entries, err := all.exports(t.Context(), func() bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	defer all.discard()
	if err := write(entries[0].OutputDir); err != nil {
		t.Fatal(err)
	}
	return all.keep()
}

// Two builds into one folder: what the first leaves there must not lead the
// second out of it.
func TestOutputStaysInFolder(t *testing.T) {
	dir := t.TempDir()
	folder, outside := filepath.Join(dir, "out"), filepath.Join(dir, "outside")
	if err := os.Mkdir(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := export(t, folder, func(staging string) error {
		return errors.Join(
			os.Symlink(outside, filepath.Join(staging, "x")),
			os.Symlink(filepath.Join(outside, "file"), filepath.Join(staging, "y")),
			os.Symlink(outside, filepath.Join(staging, "z")))
	}); err != nil {
		t.Fatal(err)
	}
	files, err := export(t, folder, func(staging string) error {
		return errors.Join(
			os.Mkdir(filepath.Join(staging, "x"), 0o755),
			os.WriteFile(filepath.Join(staging, "x", "authorized_keys"), []byte("key"), 0o644),
			os.WriteFile(filepath.Join(staging, "y"), []byte("y"), 0o644),
			os.Symlink("elsewhere", filepath.Join(staging, "z")))
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := names(t, outside); len(got) > 0 {
		t.Errorf("the build wrote %q outside of its folder", got)
	}
	want := []File{{filepath.Join(folder, "x/authorized_keys"), 3}, {filepath.Join(folder, "y"), 1}, {filepath.Join(folder, "z"), 9}}
	if !slices.Equal(files, want) {
		t.Errorf("got %v, want %v", files, want)
	}
	if got := names(t, folder); !slices.Equal(got, []string{"x/authorized_keys", "y", "z"}) {
		t.Errorf("the folder holds %q", got)
	}
}

// A build merges its tree into the folder, with the modes of directories.
func TestOutputMerges(t *testing.T) {
	folder := t.TempDir()
	old := time.Unix(1_000_000_000, 0)
	tree := func(staging string) error {
		sub := filepath.Join(staging, "etc", "sub")
		return errors.Join(
			os.MkdirAll(sub, 0o755),
			os.WriteFile(filepath.Join(sub, "file"), nil, 0o640),
			os.Mkdir(filepath.Join(staging, "was-file"), 0o755),
			os.WriteFile(filepath.Join(staging, "was-dir"), nil, 0o644),
			os.Chmod(sub, 0o700|os.ModeSticky),
			os.Chtimes(sub, time.Time{}, old))
	}
	if err := errors.Join(
		os.MkdirAll(filepath.Join(folder, "etc"), 0o755),
		os.WriteFile(filepath.Join(folder, "etc", "kept"), nil, 0o644),
		os.WriteFile(filepath.Join(folder, "was-file"), nil, 0o644),
		os.MkdirAll(filepath.Join(folder, "was-dir", "a"), 0o755),
	); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := export(t, folder, tree); err != nil {
			t.Fatal(err)
		}
		if got := names(t, folder); !slices.Equal(got, []string{"etc/kept", "etc/sub/file", "was-dir"}) {
			t.Errorf("the folder holds %q", got)
		}
		info, err := os.Stat(filepath.Join(folder, "etc", "sub"))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != os.ModeDir|os.ModeSticky|0o700 || !info.ModTime().Equal(old) {
			t.Errorf("etc/sub has mode %v and time %v", info.Mode(), info.ModTime())
		}
	}
}

// A file must not take the place of a device.
func TestOutputToDevice(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(pipe, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	all, err := parseOutputs([]string{"type=tar,dest=" + pipe})
	if err != nil {
		t.Fatal(err)
	}
	entries, err := all.exports(t.Context(), func() bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	receive(t, entries[0], "")
	if _, err := all.keep(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	if n, err := reader.Read(buf); err != nil || string(buf[:n]) != "archive" {
		t.Errorf("the pipe holds %q, %v", buf[:n], err)
	}
}

// BuildKit does not say that the disk of the client is full.
func TestExplainFullDisk(t *testing.T) {
	failed := errors.New("EOF")
	dir := t.TempDir()
	if err := (outputs{{staging: dir}}).explain(failed); err != failed {
		t.Errorf("got %v, want %v", err, failed)
	}
	need.Root(t)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=16k"); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(dir, 0)
	err := outputs{{staging: dir}}.explain(failed)
	if !errors.Is(err, failed) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
	if got := names(t, dir); len(got) > 0 {
		t.Errorf("the probe left %q", got)
	}
}

// fakeDocker makes script the docker command of the test.
func fakeDocker(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "docker"), []byte("#!/bin/sh\ncd "+dir+"\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// Images go to the store of the Docker Engine that builds, or through
// docker load.
func TestImageOutputs(t *testing.T) {
	fakeDocker(t, `cat > image && echo "$@" >> args && [ "$(cat image)" = archive ] || { echo "invalid tar header" >&2; exit 1; }`)
	for _, c := range []struct {
		output  string
		engine  bool
		kind    string
		written bool
	}{
		{"type=image,name=a", false, "image", false},
		{"type=image,name=a", true, "moby", false},
		{"type=docker,name=a", false, "docker", true},
		{"type=docker,name=a", true, "moby", false},
		{"type=docker,dest=" + filepath.Join(t.TempDir(), "a.tar"), true, "docker", true},
	} {
		all, err := parseOutputs([]string{c.output})
		if err != nil {
			t.Fatal(err)
		}
		entries, err := all.exports(t.Context(), func() bool { return c.engine })
		if err != nil {
			t.Fatal(err)
		}
		if e := entries[0]; e.Type != c.kind || (e.Output != nil) != c.written {
			t.Errorf("%s, engine %v: exporter %s with output %v", c.output, c.engine, e.Type, e.Output != nil)
		}
		if c.written {
			receive(t, entries[0], "")
		}
		all.discard()
	}
	w, err := loadImage(t.Context(), "other")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err == nil || !strings.Contains(err.Error(), "docker load: exit status 1: invalid tar header") {
		t.Errorf("a truncated image: %v", err)
	}
	docker, err := exec.LookPath("docker")
	if err != nil {
		t.Fatal(err)
	}
	if args, err := os.ReadFile(filepath.Join(filepath.Dir(docker), "args")); err != nil || string(args) != "load --quiet\n--context other load --quiet\n" {
		t.Errorf("docker ran with %q, %v", args, err)
	}
}
