package tree

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
)

// ReadLayers reads the root filesystem that the uncompressed layers of an image
// make, the bottom one first, applied to each other as the OCI image
// specification says (Image Layer Filesystem Changeset). The result is what
// ReadDir gives of the unpacked image.
//
// Where the specification leaves room: a whiteout hides what lower layers put
// under its name, wherever in the layer it stands; what a layer puts there
// itself stays. A hard link is another name of the file that its target was
// when the link was applied, whatever later entries do to the target; the
// attributes in the link's own header do not count. The attributes of the root
// come from the layers too. For everything else see ReadTar.
func ReadLayers(layers []*io.SectionReader) ([]Entry, error) {
	u := newUnpacker()
	root := NewDir("")
	u.root.file = &root
	for i, layer := range layers {
		if err := u.unpack(layer, true); err != nil {
			return nil, fmt.Errorf("layer %d of %d: %w", i+1, len(layers), err)
		}
	}
	return AddParents(u.entries()), nil
}

// OpenLayers opens the layers of an image for ReadLayers. Each is a tar
// archive, uncompressed or compressed by gzip or zstd, which its first bytes
// tell. Uncompressed content goes into files without name in the directory
// spool; close closes them.
func OpenLayers(names []string, spool string) (layers []*io.SectionReader, close func(), err error) {
	files := make([]*os.File, len(names))
	close = func() {
		for _, f := range files {
			if f != nil {
				f.Close()
			}
		}
	}
	layers = make([]*io.SectionReader, len(names))
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, name := range names {
		group.Go(func() (err error) {
			if files[i], err = openLayer(name, spool); err != nil {
				return fmt.Errorf("layer %d of %d: %w", i+1, len(names), err)
			}
			info, err := files[i].Stat()
			if err != nil {
				return err
			}
			layers[i] = io.NewSectionReader(files[i], 0, info.Size())
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		close()
		return nil, nil, err
	}
	return layers, close, nil
}

// openLayer opens a layer, or a file with what it holds uncompressed.
func openLayer(name, spool string) (*os.File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	uncompressed, err := decompress(f)
	if err == nil && uncompressed == nil {
		return f, nil
	}
	defer f.Close()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(name), err)
	}
	defer uncompressed.Close()
	to, err := os.CreateTemp(spool, ".layer.*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(to.Name()); err != nil {
		to.Close()
		return nil, err
	}
	if _, err := io.Copy(to, uncompressed); err != nil {
		to.Close()
		return nil, fmt.Errorf("uncompress %s: %w", filepath.Base(name), err)
	}
	return to, nil
}

// maxWindow is how far back matches of zstd may lie, in bytes: as much as the
// zstd program takes (--ultra -22), since the decoder allocates it.
const maxWindow = 128 << 20

// decompress returns a reader of what the file holds uncompressed. It is nil
// if the file is not compressed by a known program.
func decompress(f *os.File) (io.ReadCloser, error) {
	var head [6]byte
	n, err := f.ReadAt(head[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	starts := func(magic string) bool { return bytes.HasPrefix(head[:n], []byte(magic)) }
	in := bufio.NewReaderSize(f, 256<<10)
	switch {
	case starts("\x1f\x8b"):
		return gzip.NewReader(in)
	case starts("\x28\xb5\x2f\xfd"), n >= 4 && bytes.Equal(head[1:4], []byte("\x2a\x4d\x18")) && head[0]&0xf0 == 0x50:
		d, err := zstd.NewReader(in, zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	case starts("\xfd7zXZ\x00"), starts("BZh"):
		return nil, errors.New("a layer is a tar archive, uncompressed or compressed by gzip or zstd; this one is compressed otherwise")
	}
	return nil, nil
}
