//go:build !linux

package tree

import (
	"errors"
	"fmt"
)

// ReadDir reads the tree below a directory on Linux. On other systems, where
// files have no such attributes, it returns errors.ErrUnsupported.
func ReadDir(root string) ([]Entry, error) {
	return nil, fmt.Errorf("read tree: %s: %w", root, errors.ErrUnsupported)
}
