// Package output puts finished files in place.
package output

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// File makes the file name with what write puts into it. A file that fails
// half way never stands under its name: it is written beside it and renamed
// when complete. The file has mode 0644 and the time 0, so that every builder
// makes the same image layer of it.
func File(name string, write func(*os.File) error) (err error) {
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
