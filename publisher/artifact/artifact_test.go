package artifact_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"github.com/slipway-build/slipway/publisher/artifact"
	"github.com/slipway-build/slipway/publisher/disk"
)

// host is a registry on loopback whose answers a test can change.
type host struct {
	url string // without scheme
	mu  sync.Mutex
	// answer handles a request and returns true, or returns false for the answer
	// of the registry.
	answer   func(w http.ResponseWriter, r *http.Request) bool
	requests []string
}

func newHost(t *testing.T) *host {
	t.Helper()
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	h := new(host)
	store := registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithBlobHandler(registry.NewDiskBlobHandler(t.TempDir())))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		h.requests = append(h.requests, r.Method+" "+r.URL.Path+" "+r.Header.Get("Range"))
		answer := h.answer
		h.mu.Unlock()
		if answer == nil || !answer(w, r) {
			store.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	h.url = strings.TrimPrefix(server.URL, "http://")
	return h
}

func (h *host) set(answer func(http.ResponseWriter, *http.Request) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answer, h.requests = answer, nil
}

func (h *host) count(prefix string) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.requests {
		if strings.HasPrefix(r, prefix) {
			n++
		}
	}
	return n
}

func (h *host) ref(t testing.TB, name string) artifact.Reference {
	t.Helper()
	ref, err := artifact.ParseReference("oci://" + h.url + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// content returns a disk of random blocks, blocks of zeros and one that
// compresses. The last block is short.
func content(seed byte, blocks int) []byte {
	data := make([]byte, blocks*disk.BlockSize-1000)
	random := rand.NewChaCha8([32]byte{seed})
	for i := range blocks {
		piece := data[i*disk.BlockSize : min(len(data), (i+1)*disk.BlockSize)]
		switch i % 4 {
		case 0, 1:
			random.Read(piece)
		case 2:
			copy(piece, bytes.Repeat([]byte("slipway "), disk.BlockSize/8))
		}
	}
	return data
}

func open(t testing.TB, name string, data []byte) *disk.Disk {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := disk.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func upload(d *disk.Disk, architecture string) artifact.Upload {
	return artifact.Upload{Disk: d, Format: "raw", Architecture: architecture, BootMode: "uefi",
		Annotations: map[string]string{artifact.AnnotationLock: "sha256:" + strings.Repeat("0", 64)}}
}

func push(t testing.TB, ref artifact.Reference, uploads ...artifact.Upload) artifact.Reference {
	t.Helper()
	pushed, err := artifact.Push(t.Context(), ref, uploads)
	if err != nil {
		t.Fatal(err)
	}
	return pushed
}

func TestPushAndRead(t *testing.T) {
	h := newHost(t)
	data, other := content(1, 23), content(2, 9)
	pushed := push(t, h.ref(t, "machine:v1"), upload(open(t, "aws.raw", data), "amd64"), upload(open(t, "aws.raw", other), "arm64"))
	if !pushed.Pinned() {
		t.Fatalf("%v has no digest", pushed)
	}

	a, err := artifact.Open(t.Context(), h.ref(t, "machine:v1"), artifact.Choice{Architecture: "amd64"})
	if err != nil {
		t.Fatal(err)
	}
	if a.Reference != pushed || a.Name != "aws.raw" || a.Size != int64(len(data)) || a.Format != "raw" || a.Architecture != "amd64" || a.BootMode != "uefi" {
		t.Errorf("got %v: %+v", a.Reference, a)
	}
	// A tag that moves later does not matter.
	push(t, h.ref(t, "machine:v1"), upload(open(t, "aws.raw", other), "amd64"))
	h.set(nil)
	got, err := io.ReadAll(io.NewSectionReader(a, 0, a.Size+1))
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("read %d bytes: %v", len(got), err)
	}
	// 23 blocks of which every fourth is zero, in runs of 4: one request each.
	if n := h.count("GET /v2/machine/blobs/"); n != 6 {
		t.Errorf("%d requests, want 6", n)
	}
	// An unaligned piece over the border of two blocks.
	piece := make([]byte, 3000)
	if _, err := a.ReadAt(piece, disk.BlockSize-1000); err != nil || !bytes.Equal(piece, data[disk.BlockSize-1000:][:3000]) {
		t.Errorf("a piece: %v", err)
	}
	if d := a.Disk(); d.Digest() != open(t, "x.raw", data).Digest() {
		t.Error("the digests differ")
	}

	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for range 2 { // the second replaces the file
		name, err := a.Save(t.Context(), root)
		if err != nil {
			t.Fatal(err)
		}
		if saved, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(saved, data) {
			t.Errorf("%s differs: %v", name, err)
		}
	}
}

// TestDeterministic checks that the same disk has the same digest, and that the
// layer is a plain zstd file of the disk.
func TestDeterministic(t *testing.T) {
	h := newHost(t)
	data := content(3, 9)
	first := push(t, h.ref(t, "one:v1"), upload(open(t, "aws.raw", data), "amd64"), upload(open(t, "aws.raw", data), "arm64"))
	h.set(nil)
	second := push(t, h.ref(t, "two:v2"), upload(open(t, "aws.raw", data), "arm64"), upload(open(t, "aws.raw", data), "amd64"))
	digest := func(r artifact.Reference) string { return r.String()[strings.Index(r.String(), "@"):] }
	if digest(first) != digest(second) {
		t.Errorf("%v and %v", first, second)
	}
	// It changes if the format or the version of the compressor does. Then disks
	// that are pushed again get new digests: say so in the changelog.
	if want := "@sha256:87e9c67b6c3c0d58fb162d88653f5b45af401dc362c6918bbc1824ce8b9404b9"; digest(first) != want {
		t.Errorf("got %s, want %s", digest(first), want)
	}
	h.set(nil)
	push(t, h.ref(t, "one:v1"), upload(open(t, "aws.raw", data), "amd64"), upload(open(t, "aws.raw", data), "arm64"))
	if n := h.count("PATCH"); n != 0 {
		t.Errorf("%d blobs were sent again", n)
	}

	body, err := layer(t, first).Compressed()
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	plain, err := zstd.NewReader(body)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if got, err := io.ReadAll(plain); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the layer unpacks to %d bytes: %v", len(got), err)
	}
}

// layer returns the layer of a disk for amd64.
func layer(t testing.TB, ref artifact.Reference) v1.Layer {
	t.Helper()
	img, err := remote.Image(reference(t, strings.TrimPrefix(ref.String(), "oci://")), remote.WithPlatform(v1.Platform{OS: "linux", Architecture: "amd64"}))
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	return layers[0]
}

func layerDigest(t testing.TB, ref artifact.Reference) string {
	t.Helper()
	digest, err := layer(t, ref).Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest.String()
}

func reference(t testing.TB, text string) name.Reference {
	t.Helper()
	ref, err := name.ParseReference(text)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func TestChoice(t *testing.T) {
	h := newHost(t)
	data := content(1, 2)
	qcow2 := upload(open(t, "aws.qcow2", content(2, 3)), "amd64")
	qcow2.Format = "qcow2"
	push(t, h.ref(t, "m:v1"), upload(open(t, "aws.raw", data), "amd64"), upload(open(t, "aws.raw", data), "arm64"), qcow2)
	for choice, want := range map[artifact.Choice]string{
		{}:                                       "several disks (amd64/qcow2, amd64/raw, arm64/raw)",
		{Format: "raw"}:                          "several disks (amd64/raw, arm64/raw)",
		{Architecture: "riscv64"}:                "no disk for riscv64/any format, only amd64/qcow2, amd64/raw, arm64/raw",
		{Architecture: "amd64", Format: "qcow2"}: "",
	} {
		if _, err := artifact.Open(t.Context(), h.ref(t, "m:v1"), choice); !matches(err, want) {
			t.Errorf("%v: got %v, want %q", choice, err, want)
		}
	}
	if _, err := artifact.Push(t.Context(), h.ref(t, "m:v2"), []artifact.Upload{upload(open(t, "a.raw", data), "amd64"), upload(open(t, "b.raw", data), "amd64")}); !matches(err, "two disks for amd64/raw") {
		t.Errorf("two disks of one kind: %v", err)
	}
	if _, err := artifact.Open(t.Context(), h.ref(t, "m:none"), artifact.Choice{}); !matches(err, "404") {
		t.Errorf("a tag that does not exist: %v", err)
	}
}

func matches(err error, want string) bool {
	if want == "" {
		return err == nil
	}
	return err != nil && strings.Contains(err.Error(), want) && !strings.Contains(err.Error(), "\n")
}

// TestFaults checks that temporary failures are retried.
func TestFaults(t *testing.T) {
	h := newHost(t)
	data := content(1, 40)
	pushed := push(t, h.ref(t, "m:v1"), upload(open(t, "aws.raw", data), "amd64"))
	failed := map[string]int{}
	h.set(func(w http.ResponseWriter, r *http.Request) bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		key := r.URL.Path + r.Header.Get("Range")
		failed[key]++
		switch n := failed[key]; {
		case n == 1:
			http.Error(w, "later", http.StatusServiceUnavailable)
		case n == 2:
			panic(http.ErrAbortHandler) // resets the connection
		case n == 3 && r.Header.Get("Range") != "":
			var start, end int
			fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &start, &end)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/99999999", start, end))
			w.Header().Set("Content-Length", fmt.Sprint(end-start+1))
			w.WriteHeader(http.StatusPartialContent)
			w.Write(make([]byte, (end-start)/2)) // truncated
		case n == 4 && r.Header.Get("Range") != "":
			http.Error(w, "slow down", http.StatusTooManyRequests)
		default:
			return false
		}
		return true
	})
	a, err := artifact.Open(t.Context(), pushed, artifact.Choice{})
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for i := range 40 {
		group.Go(func() {
			block := make([]byte, disk.BlockSize)
			n, err := a.ReadAt(block, int64(i)*disk.BlockSize)
			if err != nil && err != io.EOF || !bytes.Equal(block[:n], data[i*disk.BlockSize:][:n]) || n == 0 {
				t.Errorf("block %d: %d bytes, %v", i, n, err)
			}
		})
	}
	group.Wait()
}

// TestHostile checks that a registry cannot make this program accept other
// content, use much memory, or write elsewhere.
func TestHostile(t *testing.T) {
	h := newHost(t)
	data := content(1, 5)
	pushed := push(t, h.ref(t, "m:v1"), upload(open(t, "aws.raw", data), "amd64"))
	other := layerDigest(t, push(t, h.ref(t, "m:v2"), upload(open(t, "aws.raw", content(9, 5)), "amd64")))
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer elsewhere.Close()
	blob := func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/blobs/") }
	ranged := func(r *http.Request) bool { return r.Header.Get("Range") != "" }
	reply := func(is func(*http.Request) bool, write func(http.ResponseWriter, *http.Request)) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if !is(r) {
				return false
			}
			write(w, r)
			return true
		}
	}
	partial := func(fill func([]byte)) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			var start, end int
			fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &start, &end)
			body := make([]byte, end-start+1)
			fill(body)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/*", start, end))
			w.WriteHeader(http.StatusPartialContent)
			w.Write(body)
		}
	}
	manifest := func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/manifests/") }
	for what, test := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request) bool
		want   string
	}{
		"another manifest": {reply(manifest, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"schemaVersion":2}`) }), "instead of sha256:"},
		"a huge manifest":  {reply(manifest, func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 5<<20)) }), "more than 4194304 bytes"},
		"another index":    {reply(func(r *http.Request) bool { return blob(r) && !ranged(r) }, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{}`) }), "does not match its digest"},
		"a huge index":     {reply(func(r *http.Request) bool { return blob(r) && !ranged(r) }, func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 33<<20)) }), "the registry returns more than"},
		"no ranges":        {reply(ranged, func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 100)) }), "does not support range requests"},
		"another range": {reply(ranged, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 1-2/3")
			w.WriteHeader(http.StatusPartialContent)
		}), "returns the range"},
		"garbage": {reply(ranged, partial(func(b []byte) { b[0] = 1 })), "does not match its digest"},
		"another disk": {func(_ http.ResponseWriter, r *http.Request) bool {
			if ranged(r) { // its frames have the same places
				r.URL.Path = path.Join(path.Dir(r.URL.Path), other)
			}
			return false
		}, "does not match its digest"},
		"a bomb": {reply(ranged, partial(func(b []byte) {
			e, _ := zstd.NewWriter(nil)
			copy(b, e.EncodeAll(make([]byte, 64<<20), nil))
		})), "does not match its digest"},
		"redirect to a file": {reply(blob, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "file:///etc/passwd", http.StatusTemporaryRedirect)
		}), `redirects from http to "file"`},
		"redirect for ever": {reply(blob, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		}), "redirects more than 3 times"},
		"control characters": {reply(blob, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "\x1b[2J", http.StatusForbidden) }), `\x1b[2J`},
		"redirect to nothing": {reply(blob, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		}), "does not match"},
	} {
		t.Run(what, func(t *testing.T) {
			h.set(test.answer)
			a, err := artifact.Open(t.Context(), pushed, artifact.Choice{})
			if err == nil {
				var n int
				n, err = a.ReadAt(make([]byte, len(data)), 0)
				if n > 0 {
					t.Errorf("%d bytes were read", n)
				}
			}
			if !matches(err, test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// TestForged checks manifests and indexes that anyone can push.
func TestForged(t *testing.T) {
	h := newHost(t)
	data := content(1, 5)
	pushed := push(t, h.ref(t, "m:v1"), upload(open(t, "aws.raw", data), "amd64"))
	index, err := remote.Index(reference(t, strings.TrimPrefix(pushed.String(), "oci://")))
	if err != nil {
		t.Fatal(err)
	}
	im, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	img, err := index.Image(im.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	original, err := img.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte("x")))
	repo := reference(t, h.url+"/m:v1").Context()

	for what, test := range map[string]struct{ target, old, new, want string }{
		"title with a path":    {"manifest", `"org.opencontainers.image.title":"aws.raw"`, `"org.opencontainers.image.title":"../../aws.raw"`, ""},
		"hidden title":         {"manifest", `"org.opencontainers.image.title":"aws.raw"`, `"org.opencontainers.image.title":".bashrc"`, ""},
		"other content":        {"manifest", `disk.content":"sha256:`, `disk.content":"sha256:0`, "but the manifest says"},
		"other type":           {"manifest", artifact.TypeDisk + `","config`, `text/plain","config`, "it is no disk"},
		"huge index":           {"manifest", fmt.Sprintf(`"size":%d`, len(config)), `"size":99999999999`, "the index of the disk has 99999999999 bytes"},
		"negative index":       {"manifest", fmt.Sprintf(`"size":%d`, len(config)), `"size":-1`, "the index of the disk has -1 bytes"},
		"other architecture":   {"manifest", `architecture":"amd64"`, `architecture":"arm64"`, "it is a disk for arm64/raw"},
		"version":              {"index", `"version":1`, `"version":2`, "unknown version 2"},
		"size":                 {"index", fmt.Sprintf(`"size":%d`, len(data)), `"size":9223372036854775807`, "invalid size"},
		"small size":           {"index", fmt.Sprintf(`"size":%d`, len(data)), `"size":1`, "after the end of the disk"},
		"frame outside":        {"index", `"offset":0,`, `"offset":99999999,`, "invalid offset 99999999"},
		"frame before":         {"index", `"offset":0,`, `"offset":-5,`, "invalid offset -5"},
		"overlap":              {"index", `"block":1,"offset":`, `"block":1,"offset":1,"x":`, "unknown field"},
		"order":                {"index", `"block":1,`, `"block":0,`, "block 0 follows block 0"},
		"length":               {"index", `"offset":0,"length":`, `"offset":0,"length":9`, "invalid length"},
		"digest":               {"index", `"sha256":"`, `"sha256":"A`, "invalid SHA-256"},
		"another digest":       {"index", `"sha256":"` + string(config[bytes.Index(config, []byte(`"sha256":"`))+10:][:64]), `"sha256":"` + sum, "but the manifest says"},
		"free with data":       {"index", `]}`, `],"free":[{"offset":0,"length":524288}]}`, "block 0 has data in the free extent"},
		"free outside":         {"index", `]}`, `],"free":[{"offset":0,"length":99999999}]}`, "invalid free extent"},
		"more after the index": {"index", `]}`, `]}{}`, "more after"},
	} {
		t.Run(what, func(t *testing.T) {
			target, m := config, bytes.Clone(original)
			if test.target == "manifest" {
				target = m
			}
			forged := bytes.Replace(target, []byte(test.old), []byte(test.new), 1)
			if bytes.Equal(forged, target) {
				t.Fatalf("%s does not contain %s", target, test.old)
			}
			if test.target == "manifest" {
				m = forged
			} else {
				if err := remote.WriteLayer(repo, static.NewLayer(forged, artifact.TypeIndex)); err != nil {
					t.Fatal(err)
				}
				m = bytes.Replace(m, fmt.Appendf(nil, "%x", sha256.Sum256(config)), fmt.Appendf(nil, "%x", sha256.Sum256(forged)), 1)
				m = bytes.Replace(m, fmt.Appendf(nil, `"size":%d`, len(config)), fmt.Appendf(nil, `"size":%d`, len(forged)), 1)
			}
			if err := remote.Put(repo.Tag("forged"), raw(m)); err != nil {
				t.Fatal(err)
			}
			a, err := artifact.Open(t.Context(), h.ref(t, "m:forged"), artifact.Choice{Architecture: "amd64"})
			if !matches(err, test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if err == nil && a.Name != "machine.raw" {
				t.Errorf("the name is %q", a.Name)
			}
		})
	}
}

type raw []byte

func (m raw) RawManifest() ([]byte, error)        { return m, nil }
func (m raw) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

func TestCanceled(t *testing.T) {
	h := newHost(t)
	pushed := push(t, h.ref(t, "m:v1"), upload(open(t, "aws.raw", content(1, 5)), "amd64"))
	ctx, cancel := context.WithCancel(t.Context())
	a, err := artifact.Open(ctx, pushed, artifact.Choice{})
	if err != nil {
		t.Fatal(err)
	}
	h.set(func(_ http.ResponseWriter, r *http.Request) bool { // stalls
		cancel()
		<-r.Context().Done()
		return true
	})
	if _, err := a.ReadAt(make([]byte, 1), 0); err == nil || ctx.Err() == nil {
		t.Errorf("got %v", err)
	}
}

// TestCredentials checks that those of docker login are used, and only for the
// registry.
func TestCredentials(t *testing.T) {
	h := newHost(t)
	pushed := push(t, h.ref(t, "m:v1"), upload(open(t, "aws.raw", content(1, 5)), "amd64"))
	leaked := make(chan string, 9)
	_, port, _ := strings.Cut(h.url, ":")
	h.set(func(w http.ResponseWriter, r *http.Request) bool {
		user, password, _ := r.BasicAuth()
		switch {
		case strings.HasPrefix(r.Host, "localhost:"): // the storage
			if h := r.Header.Get("Authorization"); h != "" {
				leaked <- h
			}
			return false
		case user != "user" || password != "secret":
			w.Header().Set("WWW-Authenticate", "Basic")
			http.Error(w, "who are you", http.StatusUnauthorized)
			return true
		case r.Header.Get("Range") != "":
			http.Redirect(w, r, "http://localhost:"+port+r.URL.Path, http.StatusTemporaryRedirect)
			return true
		}
		return false
	})
	if _, err := artifact.Open(t.Context(), pushed, artifact.Choice{}); !matches(err, "docker login "+h.url) {
		t.Errorf("without credentials: %v", err)
	}
	config, err := json.Marshal(map[string]any{"auths": map[string]any{h.url: map[string]string{"username": "user", "password": "secret"}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(os.Getenv("DOCKER_CONFIG"), "config.json"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := artifact.Open(t.Context(), pushed, artifact.Choice{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.ReadAt(make([]byte, 1), 0); err != nil {
		t.Error(err)
	}
	select {
	case header := <-leaked:
		t.Errorf("the storage got %q", header)
	default:
	}
}
