package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/publisher/ami"
	"github.com/slipway-build/slipway/publisher/awstest"
	"github.com/slipway-build/slipway/publisher/disk"
)

func TestVerify(t *testing.T) {
	fake := awstest.StartTLS(t, awstest.Knobs{})
	data := content(1, 5)
	h := newHost(t, fake, data)
	out, code, message := h.run(nil, "aws", "--name", "machine-1", "--json", "machine.raw")
	var published ami.Result
	if err := json.Unmarshal([]byte(out), &published); err != nil || code != 0 {
		t.Fatalf("exit %d: %s%s", code, out, message)
	}
	image := published.Images[0]
	out, code, message = h.run(nil, "aws", "verify", image.Image, "machine.raw")
	if want := image.Image + " (" + image.Snapshot + ") is machine.raw: 5 blocks match, sha256:"; code != 0 || !strings.HasPrefix(out, want) {
		t.Errorf("exit %d: %s%s, want %s", code, out, message, want)
	}

	data[3*disk.BlockSize+99] ^= 1
	if err := os.WriteFile(filepath.Join(h.dir, "other.raw"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	out, code, message = h.run(nil, "aws", "verify", "--boot-mode", "legacy-bios", image.Image, "other.raw")
	if code != 1 || !strings.Contains(out, "  block 3 is changed: byte 1572963 differs: outside of all partitions\n") || !strings.HasSuffix(message, " is not other.raw\n") {
		t.Errorf("exit %d: %s%s", code, out, message)
	}
	out, code, message = h.run(nil, "aws", "verify", "--json", image.Snapshot, "other.raw")
	var v ami.Verification
	if err := json.Unmarshal([]byte(out), &v); err != nil || code != 1 || v.Match || len(v.Differences) != 1 || v.Differences[0].Component != "outside of all partitions" {
		t.Errorf("exit %d, %v: %s%s", code, err, out, message)
	}

	whole := sparse.Bytes(data)
	m := whole.Map()
	var err error
	if m.Digests, err = whole.Digests(); err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := m.Write(&text); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.dir, "other.raw.map"), text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	out, code, message = h.run(nil, "aws", "verify", image.Image, "other.raw.map")
	if code != 1 || !strings.Contains(out, "  block 3 is changed: in the 512 KiB at 1572864\n") || !strings.Contains(out, "use the disk, or --arch and --boot-mode\n") {
		t.Errorf("exit %d: %s%s", code, out, message)
	}

	for _, args := range [][]string{{}, {"ami-1"}, {"ami-1", "machine.raw", "x"}, {"ami-1", "machine.raw", "--rebuild", "web.yml"}, {"ami-1", "--", "machine.raw"}, {"--workers", "0", "ami-1", "machine.raw"}} {
		if out, code, message := h.run(nil, append([]string{"aws", "verify"}, args...)...); code != 2 {
			t.Errorf("%q: exit %d: %s%s", args, code, out, message)
		}
	}
}

// TestVerifyRebuild replaces slipway by a script that copies a disk.
func TestVerifyRebuild(t *testing.T) {
	fake := awstest.StartTLS(t, awstest.Knobs{})
	data := content(1, 2)
	h := newHost(t, fake, data)
	out, code, message := h.run(nil, "aws", "--name", "machine-1", "--json", "machine.raw")
	var published ami.Result
	if err := json.Unmarshal([]byte(out), &published); err != nil || code != 0 {
		t.Fatalf("exit %d: %s%s", code, out, message)
	}
	script := `#!/bin/sh
echo "$@" >arguments
[ "$8" = web.yml ] || exit 7
cp machine.raw "$5/web.raw"
`
	if err := os.WriteFile(filepath.Join(h.dir, "slipway"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (string, int) {
		cmd := h.command(append([]string{"aws", "verify", "--rebuild"}, args...)...)
		cmd.Env = append(cmd.Env, "PATH="+h.dir+":"+os.Getenv("PATH"), "TMPDIR="+t.TempDir())
		out, _ := cmd.CombinedOutput()
		return string(out), cmd.ProcessState.ExitCode()
	}
	id := published.Images[0].Image
	if out, code := run("web.yml", id, "--", "--size", "1G"); code != 0 || !strings.Contains(out, "2 blocks match") {
		t.Errorf("exit %d: %s", code, out)
	}
	arguments, err := os.ReadFile(filepath.Join(h.dir, "arguments"))
	if err != nil || !bytes.HasPrefix(arguments, []byte("build --format raw --output ")) || !bytes.HasSuffix(arguments, []byte(" --size 1G web.yml\n")) {
		t.Errorf("slipway %s, %v", arguments, err)
	}
	if out, code := run("other.yml", id, "--", "--size", "1G"); code != 1 || !strings.Contains(out, "build other.yml: ") || !strings.Contains(out, "exit status 7") {
		t.Errorf("exit %d: %s", code, out)
	}
}
