package test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/publisher/ami"
	"github.com/slipway-build/slipway/publisher/awstest"
)

// An account is an account of a fake AWS with the program that publishes to it.
type account struct {
	*awstest.Server
	program, dir string
}

func newAccount(t *testing.T) account {
	t.Helper()
	a := account{Server: awstest.StartTLS(t, awstest.Knobs{}), dir: t.TempDir()}
	a.program = filepath.Join(a.dir, "slipway-publish")
	if out, err := exec.Command("go", "build", "-o", a.program, "../cmd/slipway-publish").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Cleanup(func() {
		for _, v := range a.Violations() {
			t.Error(v)
		}
	})
	return a
}

// publish creates an AMI of a disk with slipway-publish.
func (a account) publish(t *testing.T, disk string, args ...string) *ami.Image {
	t.Helper()
	cmd := exec.Command(a.program, append([]string{"aws", "--json", disk}, args...)...)
	cmd.Env = append(append(os.Environ(), a.Env()...), "XDG_STATE_HOME="+a.dir)
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("publish: %v\n%s", err, log.String())
	}
	if strings.Contains(log.String(), "has no driver for") {
		t.Error(log.String())
	}
	var result ami.Result
	if err := json.Unmarshal(out, &result); err != nil {
		t.Fatal(err)
	}
	return result.Images[0]
}

// deploy rolls an image out with slipway-publish.
func (a account) deploy(t *testing.T, image *ami.Image, args ...string) *ami.Deployment {
	t.Helper()
	cmd := exec.Command(a.program, append([]string{"aws", "deploy", "--json", image.Image}, args...)...)
	cmd.Env = append(append(os.Environ(), a.Env()...), "XDG_STATE_HOME="+a.dir)
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("deploy: %v\n%s", err, log.String())
	}
	var result ami.Deployment
	if err := json.Unmarshal(out, &result); err != nil {
		t.Fatal(err)
	}
	return &result
}

// save writes the content of an image's snapshot to a file.
func (a account) save(t *testing.T, image *ami.Image) string {
	t.Helper()
	volume, err := a.Disk(image.Region, image.Snapshot)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(filepath.Join(a.dir, image.Snapshot+".raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := volume.WriteTo(file); err != nil {
		t.Fatal(err)
	}
	return file.Name()
}
