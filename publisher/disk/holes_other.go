//go:build !(linux || darwin || freebsd)

package disk

import "os"

// nextData returns the next bytes that may be data: all of them.
func nextData(_ *os.File, at, size int64) (start, end int64, err error) { return at, size, nil }
