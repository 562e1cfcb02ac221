package client

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/gofrs/flock"
)

// A store keeps the parts of machines on this computer, so that a build receives
// only those that it lacks. The key of a part is the digest of the graph that
// makes it.
//
// Each part is a directory with its files in partFiles and their checksums in
// partIndex. A part whose files have other checksums, for example after a power
// failure, does not exist. Builds hold a shared lock on the store, and whoever
// removes parts an exclusive one.
type store struct {
	dir   string
	max   int64 // bytes
	lock  *flock.Flock
	added atomic.Bool // parts
}

// maxStore is how many bytes of parts the store keeps, those of some 40 machines.
const maxStore = 2 << 30

const (
	partFiles = "files"
	partIndex = "index.json"
	newPart   = ".new-" // prefix of a part that is not complete
)

// A storedFile is a file of a part.
type storedFile struct {
	Size int64
	Sum  uint64 // xxHash64
}

// openStore opens the user's store: slipway/parts in the user's cache folder.
func openStore() (*store, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	return openStoreAt(filepath.Join(cache, "slipway", "parts"), maxStore)
}

func openStoreAt(dir string, limit int64) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &store{dir: dir, max: limit, lock: flock.New(filepath.Join(dir, ".lock"), flock.SetPermissions(0o600))}
	return s, s.lock.RLock()
}

// close releases the store. If parts were added and no other build uses it, it
// removes those that were not used for the longest time.
func (s *store) close() error {
	defer s.lock.Close()
	if !s.added.Load() {
		return nil
	}
	if err := s.lock.Unlock(); err != nil {
		return err
	}
	if alone, err := s.lock.TryLock(); err != nil || !alone {
		return err
	}
	return s.clean()
}

// get returns the directory with the files of a part, or "" if the store does not
// have it.
func (s *store) get(key string) string {
	dir := filepath.Join(s.dir, key)
	index, err := readIndex(dir)
	if err != nil {
		return ""
	}
	for name, want := range index {
		got, err := sumFile(filepath.Join(dir, partFiles, name))
		if err != nil || got != want {
			return ""
		}
	}
	now := time.Now()
	_ = os.Chtimes(filepath.Join(dir, partIndex), now, now) // only the order of removal depends on it
	return filepath.Join(dir, partFiles)
}

// put stores the part that fill writes into a directory and returns the directory
// with its files.
func (s *store) put(key string, fill func(dir string) (map[string]storedFile, error)) (string, error) {
	staging, err := os.MkdirTemp(s.dir, newPart)
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(staging)
	files := filepath.Join(staging, partFiles)
	if err := os.Mkdir(files, 0o700); err != nil {
		return "", err
	}
	index, err := fill(files)
	if err != nil {
		return "", err
	}
	data, err := json.Marshal(index)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(staging, partIndex), data, 0o600); err != nil {
		return "", err
	}
	s.added.Store(true)
	dir := filepath.Join(s.dir, key)
	if os.Rename(staging, dir) != nil {
		// The part exists: it is damaged, or another build was faster.
		if found := s.get(key); found != "" {
			return found, nil
		}
		if err := os.RemoveAll(dir); err != nil {
			return "", err
		}
		if err := os.Rename(staging, dir); err != nil {
			return "", err
		}
	}
	return filepath.Join(dir, partFiles), nil
}

func readIndex(dir string) (map[string]storedFile, error) {
	data, err := os.ReadFile(filepath.Join(dir, partIndex))
	if err != nil {
		return nil, err
	}
	var index map[string]storedFile
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, err
	}
	for name := range index {
		if filepath.Base(name) != name || !filepath.IsLocal(name) {
			return nil, fmt.Errorf("invalid name %q", name)
		}
	}
	return index, nil
}

func sumFile(name string) (storedFile, error) {
	f, err := os.Open(name)
	if err != nil {
		return storedFile{}, err
	}
	defer f.Close()
	sum := xxhash.New()
	n, err := io.Copy(sum, f)
	return storedFile{n, sum.Sum64()}, err
}

// clean removes incomplete parts, and the least recently used ones until the rest
// are small enough. No other build may use the store.
func (s *store) clean() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	type part struct {
		dir  string
		used time.Time
		size int64
	}
	var parts []part
	var total int64
	for _, e := range entries {
		if !e.IsDir() {
			continue // the lock
		}
		dir := filepath.Join(s.dir, e.Name())
		p := part{dir: dir}
		index, err := readIndex(dir)
		if info, statErr := os.Stat(filepath.Join(dir, partIndex)); err == nil && statErr == nil && !strings.HasPrefix(e.Name(), newPart) {
			p.used = info.ModTime()
			for _, f := range index {
				p.size += f.Size
			}
		}
		parts = append(parts, p)
		total += p.size
	}
	slices.SortFunc(parts, func(a, b part) int { return a.used.Compare(b.used) })
	for _, p := range parts {
		if total <= s.max && !p.used.IsZero() {
			break
		}
		if err := os.RemoveAll(p.dir); err != nil {
			return err
		}
		total -= p.size
	}
	return nil
}
