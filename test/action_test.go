package test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

const actionFolder = "../.github/actions/slipway"

// A releaseServer serves the files of one release, as GitHub does.
type releaseServer struct {
	*httptest.Server
	files map[string][]byte
}

func newReleaseServer(t *testing.T, version string) *releaseServer {
	s := &releaseServer{files: map[string][]byte{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, ok := strings.CutPrefix(r.URL.Path, "/download/v"+version+"/")
		if !ok {
			name, ok = strings.CutPrefix(r.URL.Path, "/latest/download/")
		}
		data, exists := s.files[name]
		if !ok || !exists {
			http.NotFound(w, r)
			return
		}
		w.Write(data)
	}))
	t.Cleanup(s.Close)
	folder := fmt.Sprintf("slipway_%s_%s_%s", version, runtime.GOOS, runtime.GOARCH)
	var data bytes.Buffer
	z := gzip.NewWriter(&data)
	out := tar.NewWriter(z)
	program := fmt.Sprintf("#!/bin/sh\n[ \"$1\" = --version ] && exec echo slipway version %s\nprintf '%%s\\n' \"$@\" >\"$ARGS\"\n", version)
	for name, text := range map[string]string{"slipway": program, "LICENSE": "license\n"} {
		if err := out.WriteHeader(&tar.Header{Name: folder + "/" + name, Mode: 0o755, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(out, text)
	}
	out.Close()
	z.Close()
	s.files[folder+".tar.gz"] = data.Bytes()
	s.files["SHA256SUMS"] = fmt.Appendf(nil, "%064x  slipway_%s_examples.tar.gz\n%x  %s.tar.gz\n", 0, version, sha256.Sum256(data.Bytes()), folder)
	return s
}

// The action installs a release, and refuses one that is damaged.
func TestActionInstall(t *testing.T) {
	s := newReleaseServer(t, "1.2.3")
	install := func(version string) (folder, output string, err error) {
		folder = filepath.Join(t.TempDir(), "bin")
		cmd := exec.Command(filepath.Join(actionFolder, "install"), version, folder)
		cmd.Env = append(os.Environ(), "SLIPWAY_RELEASES="+s.URL)
		out, err := cmd.CombinedOutput()
		return folder, string(out), err
	}
	for _, version := range []string{"1.2.3", "v1.2.3", "latest"} {
		folder, output, err := install(version)
		if err != nil {
			t.Fatalf("%s: %v\n%s", version, err, output)
		}
		if out, err := exec.Command(filepath.Join(folder, "slipway"), "--version").Output(); string(out) != "slipway version 1.2.3\n" {
			t.Errorf("%s: installed %q, %v", version, out, err)
		}
	}
	if _, output, err := install("9.9.9"); err == nil || !strings.Contains(output, "cannot download") {
		t.Errorf("a version that does not exist: %v\n%s", err, output)
	}
	for name := range s.files {
		if strings.HasSuffix(name, runtime.GOARCH+".tar.gz") {
			s.files[name] = append(s.files[name], 0)
		}
	}
	folder, output, err := install("1.2.3")
	if err == nil || !strings.Contains(output, "is damaged: its digest") {
		t.Errorf("a damaged archive: %v\n%s", err, output)
	}
	if _, err := os.Stat(folder); err == nil {
		t.Error("a damaged archive is unpacked")
	}
}

// The steps of the action pass its inputs on.
func TestActionSteps(t *testing.T) {
	s := newReleaseServer(t, "1.2.3")
	text, err := os.ReadFile(filepath.Join(actionFolder, "action.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var action struct {
		Inputs map[string]struct{ Default string }
		Runs   struct {
			Steps []struct {
				Run string
				Env map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(text, &action); err != nil {
		t.Fatal(err)
	}
	folder, err := filepath.Abs(actionFolder)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	values := map[string]string{"${{ github.action_path }}": folder}
	for name, input := range action.Inputs {
		values["${{ inputs."+name+" }}"] = input.Default
	}
	values["${{ inputs.file }}"] = "my machine.yml"
	values["${{ inputs.arguments }}"] = "--name=x y\n--size\n1G\n"
	env := append(os.Environ(), "SLIPWAY_RELEASES="+s.URL, "RUNNER_TEMP="+dir, "ARGS="+dir+"/args",
		"GITHUB_PATH="+dir+"/path", "GITHUB_OUTPUT="+dir+"/output", "PATH="+dir+"/slipway:"+os.Getenv("PATH"))
	for _, step := range action.Runs.Steps {
		cmd := exec.Command("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step.Run)
		cmd.Env = env
		for name, value := range step.Env {
			cmd.Env = append(cmd.Env, name+"="+values[value])
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	for name, want := range map[string]string{
		"path":   dir + "/slipway\n",
		"output": "version=1.2.3\n",
		"args":   "build\n--format\nraw\n--output\nout\n--name=x y\n--size\n1G\nmy machine.yml\n.\n",
	} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); string(got) != want {
			t.Errorf("%s: got %q, want %q, %v", name, got, want, err)
		}
	}
}
