package client

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRemoteAddress(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("BUILDX_CONFIG", dir)
	if err := os.Mkdir(filepath.Join(dir, "instances"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, instance := range map[string]string{
		"socket":    `{"Name":"socket","Driver":"remote","Nodes":[{"Name":"socket0","Endpoint":"unix:///run/b.sock","DriverOpts":null}]}`,
		"tls":       `{"Name":"tls","Driver":"remote","Nodes":[{"Name":"tls0","Endpoint":"tcp://b:1234","DriverOpts":{"cacert":"/ca.pem"}}]}`,
		"container": `{"Name":"container","Driver":"docker-container","Nodes":[{"Name":"container0","Endpoint":"unix:///var/run/docker.sock"}]}`,
		"damaged":   `{"Name":`,
	} {
		if err := os.WriteFile(filepath.Join(dir, "instances", name), []byte(instance), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"socket": "unix:///run/b.sock", "tls": "", "container": "", "damaged": "", "nonsuch": "", "": ""} {
		if got := remoteAddress(name); got != want {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
	}
}

func TestBuildxDriver(t *testing.T) {
	fakeDocker(t, `[ "$*" = "buildx inspect --builder mine" ] && printf 'Name:   mine\nDriver: docker\n\nNodes:\n'`)
	if got, err := buildxDriver(t.Context(), "mine"); err != nil || got != "docker" {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := buildxDriver(t.Context(), ""); err == nil || got != "" {
		t.Errorf("an unknown builder: got %q, %v", got, err)
	}
}

// What docker buildx says is the reason, without the words about SSH around it.
func TestDialError(t *testing.T) {
	fakeDocker(t, `echo "ERROR: no builder \"mine\" found" >&2; exit 1`)
	t.Setenv("BUILDX_CONFIG", t.TempDir())
	_, err := Dial(t.Context(), "mine")
	if err == nil || !strings.Contains(err.Error(), "mine does not answer: ERROR: no builder") || strings.Contains(err.Error(), "18.09") {
		t.Error(err)
	}
}
