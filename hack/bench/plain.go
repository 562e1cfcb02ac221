package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
)

// plain measures the floors of a program without BuildKit.
func (b *setup) plain(ctx context.Context, compression string) error {
	name := func(what string) string { return "plain/" + compression + "/" + what }
	if !b.wants(name("pull"), name("pack"), name("service")) {
		return nil
	}
	dir := b.file("plain")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var blobs []string
	pulled := func() (err error) {
		blobs, err = pull(ctx, b.images.all, dir)
		return err
	}
	if !b.wants(name("pull")) {
		if err := pulled(); err != nil {
			return err
		}
	}
	if err := b.time(name("pull"), pulled); err != nil {
		return err
	}
	if err := b.time(name("pack"), func() error { return pack(blobs, compression) }); err != nil {
		return err
	}
	return b.time(name("service"), func() error {
		blobs, err := pull(ctx, []v1.Image{b.images.sshd[1]}, dir)
		if err != nil {
			return err
		}
		return pack(blobs, compression)
	})
}

// pull downloads the layers of images into files and verifies their digests,
// the largest first. It returns the names of the files.
func pull(ctx context.Context, images []v1.Image, dir string) ([]string, error) {
	type blob struct {
		name  string
		layer v1.Layer
		size  int64
	}
	var blobs []blob
	for _, image := range images {
		layers, err := image.Layers()
		if err != nil {
			return nil, err
		}
		for _, l := range layers {
			digest, err := l.Digest()
			if err != nil {
				return nil, err
			}
			size, err := l.Size()
			if err != nil {
				return nil, err
			}
			blobs = append(blobs, blob{filepath.Join(dir, digest.Hex), l, size})
		}
	}
	slices.SortFunc(blobs, func(a, b blob) int { return int(b.size - a.size) })
	group, _ := errgroup.WithContext(ctx)
	group.SetLimit(4)
	var names []string
	for _, b := range blobs {
		names = append(names, b.name)
		group.Go(func() error {
			r, err := b.layer.Compressed() // verifies the digest
			if err != nil {
				return err
			}
			defer r.Close()
			f, err := os.Create(b.name)
			if err != nil {
				return err
			}
			if _, err := io.Copy(f, r); err != nil {
				f.Close()
				return err
			}
			return f.Close()
		})
	}
	return names, group.Wait()
}

// piece is the number of bytes that a processor compresses at a time.
const piece = 8 << 20

// pack decompresses files and compresses their contents in pieces on all
// processors, into files next to them.
func pack(names []string, compression string) error {
	compress, err := compressor(compression)
	if err != nil {
		return err
	}
	free := make(chan struct{}, runtime.GOMAXPROCS(0)) // limits the pieces in progress
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, name := range names {
		group.Go(func() error {
			in, err := os.Open(name)
			if err != nil {
				return err
			}
			defer in.Close()
			layer, err := uncompress(bufio.NewReaderSize(in, 1<<20))
			if err != nil {
				return err
			}
			var pieces errgroup.Group
			for i := 0; err == nil; i++ {
				data := make([]byte, piece)
				var n int
				if n, err = io.ReadFull(layer, data); n == 0 {
					break
				}
				free <- struct{}{}
				pieces.Go(func() error {
					defer func() { <-free }()
					packed, err := compress(data[:n])
					if err != nil {
						return err
					}
					return os.WriteFile(fmt.Sprintf("%s.%d", name, i), packed, 0o644)
				})
			}
			if err := pieces.Wait(); err != nil {
				return err
			}
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil
			}
			return err
		})
	}
	return group.Wait()
}

// uncompress decompresses a layer, which uses zstd or gzip.
func uncompress(r *bufio.Reader) (io.Reader, error) {
	if magic, err := r.Peek(4); err == nil && string(magic) == "\x28\xb5\x2f\xfd" {
		return zstd.NewReader(r)
	}
	return gzip.NewReader(r)
}

// compressor returns a function that compresses with the packer's default
// level.
func compressor(compression string) (func([]byte) ([]byte, error), error) {
	if compression == "zstd" {
		encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(3)))
		return func(data []byte) ([]byte, error) { return encoder.EncodeAll(data, nil), nil }, err
	}
	return func(data []byte) ([]byte, error) {
		var out bytes.Buffer
		w, err := gzip.NewWriterLevel(&out, 6)
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(data); err != nil {
			return nil, err
		}
		err = w.Close()
		return out.Bytes(), err
	}, nil
}
