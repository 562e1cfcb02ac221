package client

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/ociindex"
	"github.com/moby/buildkit/identity"
	"github.com/opencontainers/go-digest"
	"github.com/tonistiigi/fsutil"
)

// addContext makes a named context available to BuildKit and returns its value
// for the frontend.
func addContext(so *client.SolveOpt, name, value string) (string, error) {
	layout, ok := strings.CutPrefix(value, "oci-layout://")
	switch {
	case ok:
		return addLayout(so, layout)
	case strings.Contains(value, "://") || strings.HasPrefix(value, "git@"):
		return value, nil
	}
	if info, err := os.Stat(value); err != nil {
		return "", err
	} else if !info.IsDir() {
		return "", fmt.Errorf("%s is not a folder", value)
	}
	fs, err := fsutil.NewFS(value)
	if err != nil {
		return "", err
	}
	mount := "context:" + name // cannot equal a name that the frontend uses itself
	so.LocalMounts[mount] = fs
	return "local:" + mount, nil
}

// addLayout makes an OCI image layout available to BuildKit: PATH, PATH:TAG or
// PATH@DIGEST.
func addLayout(so *client.SolveOpt, layout string) (string, error) {
	path, pinned, _ := strings.Cut(layout, "@")
	tag := "latest"
	if i := strings.LastIndexByte(path, ':'); i > strings.LastIndexByte(path, '/') {
		path, tag = path[:i], path[i+1:]
	}
	if pinned == "" {
		var err error
		if pinned, err = layoutDigest(path, tag); err != nil {
			return "", err
		}
	}
	if _, err := digest.Parse(pinned); err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err != nil {
		return "", err // NewStore would create it
	}
	store, err := local.NewStore(path)
	if err != nil {
		return "", errors.New("not an OCI image layout")
	}
	id := identity.NewID()
	so.OCIStores[id] = store
	return "oci-layout://" + id + "@" + pinned, nil
}

// layoutDigest returns the digest of the image with a tag in an OCI image layout.
// If the layout holds a single image, the tag does not matter.
func layoutDigest(path, tag string) (string, error) {
	index := ociindex.NewStoreIndex(path)
	desc, err := index.Get(tag)
	if err == nil && desc == nil {
		desc, err = index.GetSingle()
	}
	if err != nil {
		return "", err
	}
	if desc == nil {
		return "", fmt.Errorf("%s holds several images and none with tag %s: add :TAG or @DIGEST", path, tag)
	}
	return desc.Digest.String(), nil
}
