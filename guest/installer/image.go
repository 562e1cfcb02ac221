package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/slipway-build/slipway/publisher/artifact"
)

// An image is what to write.
type image struct {
	io.ReaderAt
	io.Closer
	name    string // printable
	size    int64
	sha256  []byte            // that the user wants; nil for any
	written [sha256.Size]byte // after install
}

// openImage opens a file, or a disk in a registry. What comes from the registry
// is verified against the digest in its name.
func openImage(ctx context.Context, name, digest string) (*image, error) {
	want, err := hex.DecodeString(digest)
	if err != nil || digest != "" && len(want) != sha256.Size {
		return nil, fmt.Errorf("invalid SHA-256 %q", digest)
	}
	if digest == "" {
		want = nil
	}
	if artifact.IsReference(name) {
		i, err := pull(ctx, name)
		if err != nil {
			return nil, err
		}
		i.sha256 = want
		return i, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || info.Size() == 0) {
		err = fmt.Errorf("%q is not a disk image: it must be a file with content", name)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &image{ReaderAt: f, Closer: f, name: filepath.Base(name), size: info.Size(), sha256: want}, nil
}

// pull opens a disk in a registry.
func pull(ctx context.Context, name string) (*image, error) {
	ref, err := artifact.ParseReference(name)
	if err != nil {
		return nil, err
	}
	if !ref.Pinned() {
		return nil, fmt.Errorf("%s has no digest: name the image as oci://REGISTRY/REPOSITORY@sha256:DIGEST, as slipway push prints it", ref)
	}
	a, err := artifact.Open(ctx, ref, artifact.Choice{Architecture: architecture, Format: "raw"})
	if err != nil {
		return nil, err
	}
	return &image{ReaderAt: a, Closer: io.NopCloser(nil), name: a.Name, size: a.Size}, nil
}
