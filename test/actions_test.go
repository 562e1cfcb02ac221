package test

import (
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slipway-build/slipway/internal/testutil/buildkitd"
)

// actionsCache is a fake of the part of GitHub Actions' cache service, version
// 2, that BuildKit calls: JSON calls of Twirp for the entries
// (github.actions.results.api.v1.CacheService), and Azure's Put Blob, Put
// Block, Put Block List and Get Blob for their contents. Entries never change.
type actionsCache struct {
	*httptest.Server

	mu      sync.Mutex
	keys    []string          // keys of the finished entries, oldest first
	blobs   map[string][]byte // by key
	blocks  map[string][]byte // by key and block id
	reading map[string]int    // bytes read, by key
}

func newActionsCache(t *testing.T) *actionsCache {
	c := &actionsCache{blobs: map[string][]byte{}, blocks: map[string][]byte{}, reading: map[string]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /twirp/github.actions.results.api.v1.CacheService/{method}", c.call)
	mux.HandleFunc("PUT /blobs/{key}", c.put)
	mux.HandleFunc("GET /blobs/{key}", c.get)
	c.Server = httptest.NewServer(mux)
	t.Cleanup(c.Close)
	return c
}

// environment returns the environment variables of a workflow that
// docker/bake-action sets for the cache.
func (c *actionsCache) environment() []string {
	part := func(v any) string {
		data, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		return base64.RawURLEncoding.EncodeToString(data)
	}
	now := time.Now().Unix()
	token := strings.Join([]string{part(map[string]string{"alg": "HS256", "typ": "JWT"}), part(map[string]any{
		"ac": `[{"Scope":"refs/heads/main","Permission":3}]`, "nbf": now - 60, "exp": now + 3600,
	}), "unsigned"}, ".")
	return []string{"ACTIONS_CACHE_SERVICE_V2=true", "ACTIONS_RESULTS_URL=" + c.URL + "/", "ACTIONS_RUNTIME_TOKEN=" + token}
}

// find returns the entry with exactly this key, or the newest with one of the
// prefixes.
func (c *actionsCache) find(key string, prefixes []string) string {
	if _, ok := c.blobs[key]; ok {
		return key
	}
	for _, prefix := range prefixes {
		for i := len(c.keys) - 1; i >= 0; i-- {
			if strings.HasPrefix(c.keys[i], prefix) {
				return c.keys[i]
			}
		}
	}
	return ""
}

func (c *actionsCache) call(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var request struct {
		Key         string   `json:"key"`
		RestoreKeys []string `json:"restore_keys"`
	}
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	blob := c.URL + "/blobs/"
	answer := map[string]any{"ok": true}
	switch r.PathValue("method") {
	case "CreateCacheEntry":
		if c.find(request.Key, nil) != "" {
			w.WriteHeader(http.StatusConflict)
			answer = map[string]any{"code": "already_exists", "msg": "cache entry with the same key already exists"}
			break
		}
		answer["signed_upload_url"] = blob + request.Key
	case "FinalizeCacheEntryUpload":
		c.keys = append(c.keys, request.Key)
		answer["entry_id"] = fmt.Sprint(len(c.keys))
	case "GetCacheEntryDownloadURL":
		found := c.find(request.Key, request.RestoreKeys)
		answer["ok"] = found != ""
		answer["matched_key"] = found
		answer["signed_download_url"] = blob + found
	default:
		http.NotFound(w, r)
		return
	}
	json.NewEncoder(w).Encode(answer)
}

func (c *actionsCache) put(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	key, query := r.PathValue("key"), r.URL.Query()
	switch query.Get("comp") {
	case "block":
		c.blocks[key+" "+query.Get("blockid")] = data
	case "blocklist":
		var list struct{ Latest []string }
		if err := xml.Unmarshal(data, &list); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		var blob []byte
		for _, id := range list.Latest {
			blob = append(blob, c.blocks[key+" "+id]...)
			delete(c.blocks, key+" "+id)
		}
		c.blobs[key] = blob
	default:
		c.blobs[key] = data
	}
	w.Header().Set("x-ms-request-id", "1")
	w.WriteHeader(http.StatusCreated)
}

func (c *actionsCache) get(w http.ResponseWriter, r *http.Request) {
	key := r.PathValue("key")
	c.mu.Lock()
	data, ok := c.blobs[key]
	c.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	start := 0
	if text := r.Header.Get("x-ms-range"); text != "" {
		if _, err := fmt.Sscanf(text, "bytes=%d-", &start); err != nil || start > len(data) {
			http.Error(w, text, http.StatusRequestedRangeNotSatisfiable)
			return
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, len(data)-1, len(data)))
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(data)-start))
	w.Header().Set("x-ms-request-id", "1")
	if start > 0 {
		w.WriteHeader(http.StatusPartialContent)
	}
	n, _ := w.Write(data[start:])
	c.mu.Lock()
	c.reading[key] += n
	c.mu.Unlock()
}

// reset returns the number of large blobs that were read since the last reset.
func (c *actionsCache) reset() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, size := range c.reading {
		if size > large {
			n++
		}
	}
	clear(c.reading)
	return n
}

// The bake file of the example workflows builds on a new runner from GitHub's
// cache.
func TestExampleWorkflow(t *testing.T) {
	r := startRegistries(t)
	actions := newActionsCache(t)
	dir := t.TempDir()
	write(t, dir, map[string]string{"aws.yml": "# syntax=slipwaybuild/slipway:1\n" + cachedMachine})
	bake, err := os.ReadFile("../examples/ci/docker-bake.hcl")
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, map[string]string{"docker-bake.hcl": string(bake)})
	workflow := func(d *buildkitd.Daemon, args ...string) []string {
		cmd := d.Bake(t.Context(), append(args, "--progress=rawjson", "--allow=fs=*")...)
		cmd.Env = append(cmd.Env, actions.environment()...)
		return runs(t, cmd, dir)
	}
	disk := filepath.Join(dir, "out", "aws.raw")

	a := fresh(t, r.config)
	sameVertices(t, "the first workflow", workflow(a), packed)
	changed := r.push(t, a, "changed/rngd", "FROM slipwaybuild/rngd:v1\nCOPY <<EOF /version\n2\nEOF\n")
	first := filepath.Join(dir, "first.raw")
	if err := os.Rename(disk, first); err != nil {
		t.Fatal(err)
	}
	actions.reset()

	sameVertices(t, "an unchanged machine", workflow(fresh(t, r.config)), nil)
	sameFile(t, first, disk)
	if got := actions.reset(); got != 1 {
		t.Errorf("an unchanged machine pulled %d large blobs from GitHub's cache, want only the disk", got)
	}

	ran := workflow(fresh(t, r.config), "--set=default.contexts.slipwaybuild/rngd:v1=docker-image://"+changed)
	sameVertices(t, "one changed service", ran, repacked)
	if got := actions.reset(); got != segmentBlobs {
		t.Errorf("one changed service pulled %d large blobs from GitHub's cache, want %d", got, segmentBlobs)
	}
}
