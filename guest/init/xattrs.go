package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/internal/contract"
)

// restoreXattrs sets the extended attributes that the archives of an initramfs
// cannot hold. The exporter lists them in files of the directory dir, which lies
// at the root and is removed afterwards.
func restoreXattrs(dir string) error {
	lists, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	root := filepath.Dir(dir)
	var errs []error
	for _, list := range lists {
		data, err := os.ReadFile(filepath.Join(dir, list.Name()))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		files, err := contract.UnmarshalXattrs(data)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", list.Name(), err))
			continue
		}
		for path, attributes := range files {
			path = filepath.Join(root, path)
			for name, value := range attributes {
				err := unix.Lsetxattr(path, name, value, 0)
				// An initramfs supports security.* and trusted.*, but user.*
				// only since Linux 6.6.
				if err != nil && !(errors.Is(err, unix.EOPNOTSUPP) && strings.HasPrefix(name, "user.")) {
					errs = append(errs, fmt.Errorf("%s: set %s: %w", path, name, err))
				}
			}
		}
	}
	return errors.Join(append(errs, os.RemoveAll(dir))...)
}
