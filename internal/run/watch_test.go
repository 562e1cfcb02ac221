package run

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestAwaitChange(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "folder", "file")
	for _, d := range []string{"folder", ".git"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	paths := []string{dir, filepath.Join(dir, "nonsuch")}
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, change := range map[string]func(){
		"create": func() { write(file, "a") },
		"write":  func() { write(file, "bc") },
		"mode":   func() { os.Chmod(file, 0o755) },
		"remove": func() { os.Remove(file) },
	} {
		if name != "create" {
			write(file, "a")
		}
		before, began := TakeSnapshot(paths), time.Now()
		write(filepath.Join(dir, ".git", "index"), name) // ignored
		time.AfterFunc(50*time.Millisecond, change)
		path, saved, err := before.AwaitChange(t.Context(), paths)
		if err != nil || path != file && path != filepath.Dir(file) || saved.Before(began.Add(-time.Minute)) {
			t.Errorf("%s: %q, %v, %v", name, path, saved, err)
		}
		os.Remove(file)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*pollInterval)
	defer cancel()
	if path, _, err := TakeSnapshot(paths).AwaitChange(ctx, paths); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nothing has changed: %q, %v", path, err)
	}
}
