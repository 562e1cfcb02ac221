package stack

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// hack/stack up changes docker's buildx plugin link and the selected builder.
// hack/stack down restores both, unless the user has changed them since.
func TestRestoreHost(t *testing.T) {
	buildx := File(t, "bin", "buildx")
	root, err := Root()
	if err == nil {
		_, err = os.Stat(filepath.Join(root, "hack/stack")) // for go test's cache
	}
	if err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(t.TempDir(), "buildx")
	if err := os.Symlink(buildx, foreign); err != nil {
		t.Fatal(err)
	}
	const usePlugin = `mkdir -p "$DOCKER_CONFIG/cli-plugins" && ln -sfn "$foreign" "$DOCKER_CONFIG/cli-plugins/docker-buildx"; `
	const useBuilder = `"$bin/buildx" create --name mine --driver remote tcp://127.0.0.1:9 --use >/dev/null; `
	for name, test := range map[string]struct {
		before, meanwhile string // what the user does before up, and before down
		want              string // the plugin link and the builder after down
	}{
		"nothing before":  {"", "", "none default"},
		"both before":     {usePlugin + useBuilder, "", foreign + " mine"},
		"both meanwhile":  {"", usePlugin + useBuilder, foreign + " mine"},
		"builder removed": {useBuilder, `"$bin/buildx" rm mine`, "none default"},
		"plugin replaced": {usePlugin, `rm "$DOCKER_CONFIG/cli-plugins/docker-buildx"`, "none default"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("bash", "-c", `
				source hack/stack
				state=$STATE
				socket=unix://$STATE/buildkitd.sock
				show() {
					printf 'RESULT %s %s\n' "$(readlink "$DOCKER_CONFIG/cli-plugins/docker-buildx" || echo none)" \
						"$(env -u BUILDX_BUILDER "$bin/buildx" inspect 2>/dev/null | sed -n 's/^Name: *//p' | head -n 1)"
				}
				`+test.before+`
				register_builder
				register_builder # a second up keeps what the first one saved
				show
				`+test.meanwhile+`
				restore_host
				restore_host # a second down does nothing
				show
				! "$bin/buildx" inspect "$builder" >/dev/null 2>&1 || echo "RESULT $builder is left"`)
			cmd.Dir = root
			cmd.Env = append(os.Environ(), "STATE="+t.TempDir(), "DOCKER_CONFIG="+t.TempDir(), "BUILDX_CONFIG=", "BUILDX_BUILDER=ours", "foreign="+foreign)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			var results []string
			for line := range strings.Lines(string(out)) {
				if result, ok := strings.CutPrefix(strings.TrimSpace(line), "RESULT "); ok {
					results = append(results, result)
				}
			}
			if want := []string{buildx + " ours", test.want}; strings.Join(results, "; ") != strings.Join(want, "; ") {
				t.Errorf("after up and down: %q, want %q\n%s", results, want, out)
			}
		})
	}
}
