package client

import (
	"os"
	"path/filepath"
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
