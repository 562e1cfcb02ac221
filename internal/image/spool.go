package image

import (
	"bytes"
	"fmt"
	"io"
	"os"
)

// maxUnpacked limits what is unpacked to a temporary file, in bytes.
const maxUnpacked = 64 << 30

// A spool holds what cannot be read at any offset in an image, because it is
// compressed, in a sparse temporary file.
type spool struct {
	file *os.File
	end  int64
}

// temporary returns the temporary file of the image.
func (i *Image) temporary() (*spool, error) {
	if i.unpacked != nil {
		return i.unpacked, nil
	}
	f, err := os.CreateTemp("", "slipway-image-")
	if err != nil {
		return nil, err
	}
	// Without a name, the file goes even if the process is killed. Where an open
	// file cannot be removed, Close removes it.
	if os.Remove(f.Name()) == nil {
		i.closers = append(i.closers, f)
	} else {
		i.closers = append(i.closers, removeOnClose{f})
	}
	i.unpacked = &spool{file: f}
	return i.unpacked, nil
}

type removeOnClose struct{ *os.File }

func (r removeOnClose) Close() error {
	err := r.File.Close()
	if removed := os.Remove(r.Name()); err == nil {
		err = removed
	}
	return err
}

// add copies size bytes of r, and returns their offset in the file. Zeros become
// holes.
func (s *spool) add(r io.Reader, size int64) (at int64, err error) {
	if size < 0 || size > maxUnpacked-s.end {
		return 0, fmt.Errorf("it unpacks to more than %d GiB", maxUnpacked>>30)
	}
	at = s.end
	buf, zeros := make([]byte, 128<<10), make([]byte, 128<<10)
	for left := size; left > 0; {
		part := buf[:min(left, int64(len(buf)))]
		if _, err := io.ReadFull(r, part); err != nil {
			return 0, err
		}
		if !bytes.Equal(part, zeros[:len(part)]) {
			if _, err := s.file.WriteAt(part, s.end); err != nil {
				return 0, err
			}
		}
		s.end += int64(len(part))
		left -= int64(len(part))
	}
	// The file must have the bytes of holes at its end too.
	return at, s.file.Truncate(s.end)
}

// addAll copies r to its end, and returns the copy.
func (s *spool) addAll(r io.Reader) (*io.SectionReader, error) {
	at := s.end
	n, err := io.Copy(io.NewOffsetWriter(s.file, at), io.LimitReader(r, maxUnpacked-at+1))
	if err != nil {
		return nil, err
	}
	if n > maxUnpacked-at {
		return nil, fmt.Errorf("it unpacks to more than %d GiB", maxUnpacked>>30)
	}
	s.end = at + n
	return io.NewSectionReader(s.file, at, n), nil
}
