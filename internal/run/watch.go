package run

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// pollInterval is how often AwaitChange looks at the files. Looking is simpler
// and more portable than notifications, of which each system has its own, and
// a machine has few files.
const pollInterval = 300 * time.Millisecond

// A Snapshot is the state of files at one time.
type Snapshot map[string]fileState

type fileState struct {
	modified time.Time
	size     int64
	mode     fs.FileMode
}

// TakeSnapshot returns the state of files and of everything in folders, except
// what Git stores. Paths that do not exist are not in it.
func TakeSnapshot(paths []string) Snapshot {
	s := Snapshot{}
	for _, path := range paths {
		filepath.WalkDir(path, func(name string, e fs.DirEntry, err error) error {
			if err != nil {
				return nil // it has just been removed
			}
			if e.IsDir() && e.Name() == ".git" {
				return filepath.SkipDir
			}
			if info, err := os.Stat(name); err == nil {
				s[name] = fileState{info.ModTime(), info.Size(), info.Mode()}
			}
			return nil
		})
	}
	return s
}

// AwaitChange waits until the files differ from a snapshot and have not changed
// for one interval, so that a save of several files is one change. It returns
// the path of the file that was saved last and when it was, or an error if ctx is
// done.
func (s Snapshot) AwaitChange(ctx context.Context, paths []string) (path string, saved time.Time, err error) {
	last := s
	for {
		select {
		case <-time.After(pollInterval):
		case <-ctx.Done():
			return "", saved, context.Cause(ctx)
		}
		now := TakeSnapshot(paths)
		if path, saved := s.compare(now); path != "" {
			if settled, _ := last.compare(now); settled == "" {
				return path, saved, nil
			}
		}
		last = now
	}
}

// compare returns the file that changed last, or "".
func (s Snapshot) compare(now Snapshot) (path string, saved time.Time) {
	for name, state := range now {
		if state != s[name] && (path == "" || state.modified.After(saved)) {
			path, saved = name, state.modified
		}
	}
	for name := range s {
		if _, ok := now[name]; !ok && path == "" {
			path, saved = name, time.Now() // nothing says when it was removed
		}
	}
	return path, saved
}
