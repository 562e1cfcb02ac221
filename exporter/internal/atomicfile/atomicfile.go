// Package atomicfile writes output files that are complete or do not exist.
package atomicfile

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Write creates the file name with what write writes, or replaces it. It writes
// to a temporary file in the same directory and renames it, so a file with
// that name is always complete. The file has mode 0644 and the modification time 0,
// so that all builders create the same image layer.
func Write(name string, write func(*os.File) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", filepath.Base(name), err)
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := write(f); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	epoch := time.Unix(0, 0)
	if err := os.Chtimes(f.Name(), epoch, epoch); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
