package sparse

import (
	"fmt"
	"io"
)

// A File is a file whose parts the reader of a format reads. It may come from a
// stranger, so that the places of the parts may be anywhere.
type File struct {
	io.ReaderAt
	Size   int64  // bytes
	Format string // for errors, for example "qcow2"
	Err    error  // of the format; wrapped if a part is not within the file
}

// Bytes reads n bytes at an offset.
func (f File) Bytes(at, n int64) ([]byte, error) {
	if at < 0 || at > f.Size-n {
		return nil, fmt.Errorf("%w: byte %d: %d bytes are after the end of the file, which has %d", f.Err, max(0, at), n, f.Size)
	}
	b := make([]byte, n)
	if got, err := f.ReadAt(b, at); int64(got) < n {
		return nil, fmt.Errorf("%s: byte %d: %w", f.Format, at+int64(got), err)
	}
	return b, nil
}
