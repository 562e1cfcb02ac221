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
// make, bottom first (OCI image specification, Image Layer Filesystem Changeset).
// The result is the same as that of ReadDir for the unpacked image.
//
// Where the specification leaves a choice: a whiteout removes files of lower
// layers, wherever it is in its own layer, and keeps files of that layer. A hard
// link is another name for the file that its target names when the link is
// applied, whatever later entries do to the target. The attributes in the header
// of the link are ignored. The layers can change the attributes of the root. A
// file below a symbolic link of a lower layer turns the link into a directory,
// as overlayfs does, while links of its own layer are followed. In all other
// respects, ReadLayers works like ReadTar.
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

// OpenLayers opens the layers of an image for ReadLayers. Each is a tar archive,
// uncompressed or compressed by gzip or zstd, as its first bytes show. OpenLayers
// decompresses into unnamed files in the directory spool. The layers are valid
// until closeLayers is called.
func OpenLayers(names []string, spool string) (layers []*io.SectionReader, closeLayers func(), err error) {
	files := make([]*os.File, len(names))
	closeLayers = func() {
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
		closeLayers()
		return nil, nil, err
	}
	return layers, closeLayers, nil
}

// openLayer opens a layer, or an unnamed file with its decompressed content.
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
		return nil, fmt.Errorf("decompress %s: %w", filepath.Base(name), err)
	}
	return to, nil
}

// maxWindow is the maximum window of a zstd frame in bytes, which the decoder
// allocates. It is the maximum that the zstd program writes (--ultra -22).
const maxWindow = 128 << 20

// decompress returns a reader of the decompressed content of a file. It is nil if
// the file is not compressed.
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
		return nil, errors.New("the compression of the layer is not supported: use an uncompressed tar archive, gzip or zstd")
	}
	return nil, nil
}
