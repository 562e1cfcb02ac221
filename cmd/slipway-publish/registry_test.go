package main

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/slipway-build/slipway/internal/testutil/artifacttest"
	"github.com/slipway-build/slipway/publisher/awstest"
	"github.com/slipway-build/slipway/publisher/disk"
)

// TestRegistry publishes disks that are only in a registry.
func TestRegistry(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	var fault atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
	store := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f := fault.Load(); f == nil || !(*f)(w, r) {
			store.ServeHTTP(w, r)
		}
	}))
	defer server.Close()

	fake := awstest.StartTLS(t, awstest.Knobs{})
	data := content(1, 21)
	clear(data[5*disk.BlockSize : 11*disk.BlockSize])
	h := newHost(t, fake, data)
	files := map[string]string{}
	for arch, data := range map[string][]byte{"amd64": data, "arm64": content(2, 3)} {
		path := filepath.Join(t.TempDir(), "machine.raw")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		files[arch] = path
	}
	tag := "oci://" + strings.TrimPrefix(server.URL, "http://") + "/machines/web:v1"
	pushed := artifacttest.Push(t, tag, "raw", files)

	if _, code, message := h.run(nil, "aws", "--name", "web-1", tag); code != 1 || !strings.Contains(message, "several disks (amd64/raw, arm64/raw)") {
		t.Errorf("without an architecture: %d: %s", code, message)
	}
	if _, code, message := h.run(nil, "aws", "oci://x/y@sha256:12"); code != 2 {
		t.Errorf("an invalid digest: %d: %s", code, message)
	}

	// A registry that sends other content leaves nothing behind.
	flip := func(w http.ResponseWriter, r *http.Request) bool {
		var start, end int
		if n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &start, &end); n != 2 || start == 0 {
			return false
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/*", start, end))
		w.WriteHeader(http.StatusPartialContent)
		w.Write(make([]byte, end-start+1))
		return true
	}
	fault.Store(&flip)
	if _, code, message := h.run(nil, "aws", "--name", "web-1", "--arch", "x86_64", tag); code != 3 || !strings.Contains(message, "does not match its digest") {
		t.Errorf("other content: %d: %s", code, message)
	}
	if left := fake.Orphans(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	var failed atomic.Int32
	busy := func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Range") == "" || failed.Add(1)%3 != 0 {
			return false
		}
		http.Error(w, "busy", http.StatusBadGateway)
		return true
	}
	fault.Store(&busy)
	out, code, message := h.run(nil, "aws", "--name", "web-1", "--arch", "x86_64", tag)
	if code != 0 || !strings.Contains(message, "publishing "+pushed.String()) {
		t.Fatalf("%d: %s", code, message)
	}
	image, _, _ := strings.Cut(out, " ")
	snapshots := fake.Snapshots()
	if len(snapshots) != 1 || snapshots[0].Written != 15 {
		t.Fatalf("got %+v, want one snapshot of 15 blocks", snapshots)
	}
	volume, err := fake.Disk(awstest.Region, snapshots[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(data))
	if _, err := volume.ReadAt(got, 0); err != nil && err != io.EOF || !bytes.Equal(got, data) {
		t.Errorf("the snapshot differs: %v", err)
	}
	fault.Store(nil)

	// A disk in a file and in a registry is the same.
	for _, from := range []string{pushed.String(), "machine.raw"} {
		if out, code, message := h.run(nil, "aws", "--name", "web-1", "--arch", "x86_64", from); code != 0 || !strings.HasPrefix(out, image) {
			t.Errorf("%s again: %d: %s%s", from, code, out, message)
		}
	}
	if out, code, message := h.run(nil, "aws", "verify", "--arch", "x86_64", image, pushed.String()); code != 0 {
		t.Errorf("verify: %d: %s%s", code, out, message)
	}
	if out, code, _ := h.run(nil, "aws", "verify", "--arch", "arm64", image, pushed.String()); code != 3 && code != 1 {
		t.Errorf("verify with another disk: %d: %s", code, out)
	}
}
