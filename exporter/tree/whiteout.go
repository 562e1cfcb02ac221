package tree

import (
	"errors"
	"strings"
)

// Names with a special meaning in layers (OCI image specification, Image Layer
// Filesystem Changeset, Whiteouts).
const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
	// aufsPrefix is the prefix of AUFS metadata, which old images contain.
	aufsPrefix = ".wh..wh."
)

// whiteout removes files of lower layers from dir: all of them, or one name.
func (u *unpacker) whiteout(dir, base string) error {
	name := strings.TrimPrefix(base, whiteoutPrefix)
	if base != whiteoutOpaque && (name == "" || name == "." || name == "..") {
		return errors.New("a whiteout must name a file")
	}
	// BuildKit and Docker create the directory too if it does not exist.
	parent, _, err := u.directory(dir, true)
	if err != nil {
		return err
	}
	if parent.file == nil {
		created := NewDir("")
		parent.file = &created
	}
	if base == whiteoutOpaque {
		for name, child := range parent.children {
			if !child.hide(u.layer) {
				delete(parent.children, name)
			}
		}
		return nil
	}
	if child := parent.children[name]; child != nil && !child.hide(u.layer) {
		delete(parent.children, name)
	}
	return nil
}

// hide removes the files of lower layers from n. It reports whether files of the
// given layer remain.
func (n *node) hide(layer int) bool {
	for name, child := range n.children {
		if !child.hide(layer) {
			delete(n.children, name)
		}
	}
	if n.layer == layer {
		return true
	}
	if len(n.children) == 0 {
		return false
	}
	// The directory itself is from a lower layer.
	n.file, n.layer = nil, layer
	return true
}
