package client

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/buildkit/solver/pb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/gatewaytest"
)

// A localBuild is a machine of two images, which a test builds several times.
type localBuild struct {
	*gatewaytest.Gateway
	store string
	out   string
	time  time.Time // of the last file of the last build
}

func newLocalBuild(t *testing.T) *localBuild {
	b := &localBuild{
		Gateway: gatewaytest.New(t, "aws.yml", "init:\n  - slipwaybuild/init:v1\n  - slipwaybuild/runc:v1\n"),
		store:   filepath.Join(t.TempDir(), "store"),
		out:     t.TempDir(),
	}
	labels := map[string]string{"build.slipway.formats": fmt.Sprint(format.Version)}
	b.Images["docker.io/slipwaybuild/slipway:1"] = gatewaytest.NewImage("slipway", ocispecs.ImageConfig{Labels: labels})
	for _, name := range []string{"init", "runc"} {
		b.Images["docker.io/slipwaybuild/"+name+":v1"] = gatewaytest.NewImage(name, ocispecs.ImageConfig{})
	}
	b.Run = func(exec *pb.ExecOp) (gatewaytest.Files, error) {
		return packed(strings.Join(exec.Meta.Args, " "))
	}
	return b
}

// packed returns a segment with one file. It is larger than one message.
func packed(content string) (gatewaytest.Files, error) {
	if files, ok := segments.Load(content); ok {
		return files.(gatewaytest.Files), nil
	}
	data := append([]byte(content), make([]byte, chunk)...)
	spec, err := json.Marshal([]contract.Entry{{Path: "file", Type: "file", Mode: 0o644, Contents: data}})
	if err != nil {
		return nil, err
	}
	files, err := segment.PackEntries(spec, segment.CPIO, "none")
	out := gatewaytest.Files{}
	for name, data := range files {
		out[name] = string(data)
	}
	segments.Store(content, out)
	return out, err
}

var segments sync.Map // by content

// build builds the machine and returns the files, or nil if BuildKit has to write
// them.
func (b *localBuild) build(t *testing.T) map[string][]byte {
	t.Helper()
	s, err := openStoreAt(b.store, maxStore)
	if err != nil {
		t.Fatal(err)
	}
	staging, err := os.MkdirTemp(b.out, ".slipway-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(staging)
	r := &reuse{folder: b.out, staging: staging, store: s}
	defer r.close()
	res, err := r.build(t.Context(), b.Gateway)
	if err != nil {
		t.Fatal(err)
	}
	if ref, err := res.SingleRef(); err == nil && ref != nil {
		return nil
	}
	files := map[string][]byte{}
	entries, err := os.ReadDir(staging)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		b.time = info.ModTime()
		if files[e.Name()], err = os.ReadFile(filepath.Join(staging, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(b.out, ".slipway-*")); err != nil || !slices.Equal(left, []string{staging}) {
		t.Errorf("the build leaves %v, %v", left, err)
	}
	return files
}

// ran returns how many parts BuildKit made since the last call.
func (b *localBuild) ran() (executed int) {
	for _, req := range b.Solved() {
		if req.Evaluate {
			executed++
		}
	}
	return executed
}

func TestWriteFormats(t *testing.T) {
	b := newLocalBuild(t)
	first := b.build(t)
	if initrd := first["aws-initrd.img"]; !bytes.Contains(initrd, []byte("--rules init")) {
		t.Fatalf("the first build wrote %d files: %d bytes of initrd", len(first), len(initrd))
	}
	if got := b.ran(); got != 2 {
		t.Errorf("the first build executed %d graphs, want those of 2 segments", got)
	}

	b.Opts["build-arg:SOURCE_DATE_EPOCH"] = "1700000000"
	b.build(t)
	if got := b.time.Unix(); got != 1700000000 {
		t.Errorf("the time of the initrd is %d", got)
	}

	// Another process, for example after the output was removed.
	if again := b.build(t); !bytes.Equal(again["aws-initrd.img"], first["aws-initrd.img"]) {
		t.Error("the second build wrote other files")
	}
	if got := b.ran(); got != 2 {
		t.Errorf("the second build executed %d graphs, want none", got-2)
	}

	b.Images["docker.io/slipwaybuild/runc:v1"] = gatewaytest.NewImage("new", ocispecs.ImageConfig{})
	b.build(t)
	if got := b.ran(); got != 3 {
		t.Errorf("a changed image executed %d graphs, want that of its segment", got-2)
	}
}

// A part that changed in the store is received again.
func TestDamagedStore(t *testing.T) {
	b := newLocalBuild(t)
	first := b.build(t)
	segments, err := filepath.Glob(filepath.Join(b.store, "*", partFiles, segment.FileName))
	if err != nil || len(segments) != 2 {
		t.Fatalf("segments %v, %v", segments, err)
	}
	data, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(segments[0], data, 0o600); err != nil {
		t.Fatal(err)
	}
	if again := b.build(t); !bytes.Equal(again["aws-initrd.img"], first["aws-initrd.img"]) {
		t.Error("the build wrote the damaged segment")
	}
	if got := b.ran(); got != 3 {
		t.Errorf("the build executed %d graphs, want that of the damaged segment", got-2)
	}
	if again := b.build(t); !bytes.Equal(again["aws-initrd.img"], first["aws-initrd.img"]) || b.ran() != 3 {
		t.Error("the store still has the damaged segment")
	}
}

// What depends on files or secrets of this computer is not stored.
func TestStoreIsNotPrivate(t *testing.T) {
	b := newLocalBuild(t)
	b.Locals["context"] = gatewaytest.Files{"aws.yml": "", "app.conf": "conf"}
	b.Locals["dockerfile"] = gatewaytest.Files{"aws.yml": "init:\n  - slipwaybuild/init:v1\nfiles:\n" +
		"  - path: etc/app.conf\n    source: app.conf\n  - path: etc/key\n    secret: key\n"}
	b.Run = func(exec *pb.ExecOp) (gatewaytest.Files, error) {
		if exec.Meta.Args[1] == "entries" {
			return packed("private")
		}
		return packed("public")
	}
	for range 2 {
		if initrd := b.build(t)["aws-initrd.img"]; bytes.Count(initrd, []byte("private")) != 2 {
			t.Fatalf("the initrd has not the segments of files and secrets")
		}
	}
	if got := b.ran(); got != 5 {
		t.Errorf("two builds executed %d graphs, want the segment of the image once, the others twice", got)
	}
	err := filepath.WalkDir(b.store, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte("private")) {
			t.Errorf("%s has private data", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Only BuildKit writes what this program would write in another way.
func TestBuilderWrites(t *testing.T) {
	for name, change := range map[string]func(*localBuild){
		"another version": func(b *localBuild) {
			b.Images["docker.io/slipwaybuild/slipway:1"] = gatewaytest.NewImage("slipway", ocispecs.ImageConfig{Labels: map[string]string{"build.slipway.formats": "0"}})
		},
		"no version": func(b *localBuild) {
			b.Images["docker.io/slipwaybuild/slipway:1"] = gatewaytest.NewImage("slipway", ocispecs.ImageConfig{})
		},
		"signed": func(b *localBuild) {
			b.Opts["target"], b.Opts["build-arg:SIGN"] = "uki", "true"
			b.Locals["dockerfile"]["aws.yml"] = "kernel:\n  image: slipwaybuild/init:v1\n  tar: none\n" + b.Locals["dockerfile"]["aws.yml"]
		},
		"image":     func(b *localBuild) { b.Opts["target"] = "docker" },
		"tar":       func(b *localBuild) { b.Opts["target"] = "kernel+initrd,tar" },
		"platforms": func(b *localBuild) { b.Opts["platform"] = "linux/amd64,linux/arm64" },
	} {
		t.Run(name, func(t *testing.T) {
			b := newLocalBuild(t)
			change(b)
			if files := b.build(t); len(files) > 0 {
				t.Errorf("this process writes %d files", len(files))
			}
		})
	}
}

func TestLocalErrorsHaveLines(t *testing.T) {
	b := newLocalBuild(t)
	b.Run = func(*pb.ExecOp) (gatewaytest.Files, error) {
		return gatewaytest.Files{"segment": "070701", "names": "\"bin\" -> \"usr/bin\"\n\"bin/sh\"\n"}, nil
	}
	s, err := openStoreAt(b.store, maxStore)
	if err != nil {
		t.Fatal(err)
	}
	r := &reuse{folder: b.out, staging: t.TempDir(), store: s}
	defer r.close()
	_, err = r.build(t.Context(), b.Gateway)
	if err == nil || !strings.HasPrefix(err.Error(), "aws.yml:2: [kernel+initrd] write aws: ") {
		t.Errorf("error %v", err)
	}
}

func TestStoreIsBounded(t *testing.T) {
	dir := t.TempDir()
	add := func(key string, size int) {
		t.Helper()
		s, err := openStoreAt(dir, 250)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.put(key, func(dir string) (map[string]storedFile, error) {
			name := filepath.Join(dir, "file")
			if err := os.WriteFile(name, make([]byte, size), 0o600); err != nil {
				return nil, err
			}
			sum, err := sumFile(name)
			return map[string]storedFile{"file": sum}, err
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
	}
	keys := func() (all []string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.IsDir() {
				all = append(all, e.Name())
			}
		}
		return all
	}
	add("a", 100)
	add("b", 100)
	if err := os.Mkdir(filepath.Join(dir, newPart+"1"), 0o700); err != nil { // of a build that was killed
		t.Fatal(err)
	}
	s, err := openStoreAt(dir, 250)
	if err != nil {
		t.Fatal(err)
	}
	if s.get("a") == "" { // which is the last one used then
		t.Fatal("a is missing")
	}
	add("c", 100) // while s is open
	if got := keys(); !slices.Equal(got, []string{newPart + "1", "a", "b", "c"}) {
		t.Errorf("parts were removed during a build: %v", got)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	add("d", 10)
	if got := keys(); !slices.Equal(got, []string{"a", "c", "d"}) {
		t.Errorf("the store has %v", got)
	}
}
