package tree

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/slipway-build/slipway/internal/contract"
)

// Limits of Linux for extended attributes in bytes (include/uapi/linux/limits.h).
const (
	xattrNameMax = 255 // XATTR_NAME_MAX
	xattrSizeMax = 64 << 10
)

// Limits of a tree in memory. They are for trees that somebody else describes: a
// compressed layer of a few kilobytes can describe millions of files. A root
// filesystem in the memory of a machine is far below them.
const (
	maxFiles    = 200_000
	maxMetadata = 32 << 20 // bytes of paths, link targets and extended attributes
)

// budget counts what a tree costs in memory.
type budget struct{ files, metadata int }

// spend takes one file with a number of bytes of metadata out of the budget.
func (b *budget) spend(metadata int) error {
	b.files++
	b.metadata += metadata
	switch {
	case b.files > maxFiles:
		return fmt.Errorf("more than %d files", maxFiles)
	case b.metadata > maxMetadata:
		return fmt.Errorf("more than %d MiB of paths, link targets and extended attributes", maxMetadata>>20)
	}
	return nil
}

// metadata returns the bytes of e's path, link target and extended attributes.
func (e Entry) metadata() int {
	n := len(e.Path) + len(e.Link)
	for name, value := range e.Xattrs {
		n += len(name) + len(value)
	}
	return n
}

// Check returns an error unless Linux can create all entries: the lengths of
// paths, names, link targets and extended attributes are within its limits, and
// the tree is not too large to hold in memory. The error names the entry.
func Check(entries []Entry) error {
	var b budget
	for _, e := range entries {
		if err := e.check(); err != nil {
			return err
		}
		if err := b.spend(e.metadata()); err != nil {
			return fmt.Errorf("the root filesystem has %w", err)
		}
	}
	return nil
}

func (e Entry) check() error {
	if e.Path != "." {
		if err := CheckPath(e.Path); err != nil {
			return err
		}
	}
	if e.Type == Symlink {
		if err := checkLink(e.Link); err != nil {
			return fmt.Errorf("%q: %w", shorten(e.Path), err)
		}
	}
	if len(e.Xattrs) > 0 && !utf8.ValidString(e.Path) {
		// The list for the init, which is JSON, could not name the file.
		return fmt.Errorf("%q: the path of a file with extended attributes must be valid UTF-8", shorten(e.Path))
	}
	for name, value := range e.Xattrs {
		if err := checkXattr(name, value); err != nil {
			return fmt.Errorf("%q: %w", shorten(e.Path), err)
		}
	}
	return nil
}

// CheckPath returns an error unless p is the path of a file below the root, as
// Entry.Path wants it, and Linux can have a file of that name.
func CheckPath(p string) error {
	switch {
	case p == "" || p == ".":
		return fmt.Errorf("path %q names the root, not a file in it", p)
	case strings.HasPrefix(p, "/"):
		return fmt.Errorf("path %q must be relative to the root: remove the leading slash", shorten(p))
	case len(p) > contract.MaxPath:
		return fmt.Errorf("path %q has %d bytes: Linux allows %d", shorten(p), len(p), contract.MaxPath)
	case strings.ContainsRune(p, 0):
		return fmt.Errorf("path %q contains a NUL byte", shorten(p))
	}
	switch clean := path.Clean(p); {
	case clean == ".." || strings.HasPrefix(clean, "../") && clean == p:
		return fmt.Errorf("path %q leads out of the root", shorten(p))
	case clean != p:
		return fmt.Errorf("path %q is not clean: write %q", shorten(p), shorten(clean))
	}
	for name := range strings.SplitSeq(p, "/") {
		if err := checkName(name); err != nil {
			return fmt.Errorf("path %q: %w", shorten(p), err)
		}
	}
	return nil
}

func checkName(name string) error {
	if len(name) > contract.MaxName {
		return fmt.Errorf("the name %q has %d bytes: Linux allows %d", shorten(name), len(name), contract.MaxName)
	}
	return nil
}

func checkLink(target string) error {
	switch {
	case target == "":
		return errors.New("the target of a symbolic link is empty")
	case len(target) > contract.MaxPath:
		return fmt.Errorf("the target of the symbolic link has %d bytes: Linux allows %d", len(target), contract.MaxPath)
	case strings.ContainsRune(target, 0):
		return errors.New("the target of the symbolic link contains a NUL byte")
	}
	return nil
}

func checkXattr(name, value string) error {
	switch {
	case name == "" || strings.ContainsRune(name, 0) || !utf8.ValidString(name):
		return fmt.Errorf("extended attribute %q: invalid name", shorten(name))
	case len(name) > xattrNameMax:
		return fmt.Errorf("extended attribute %q: the name has %d bytes: Linux allows %d", shorten(name), len(name), xattrNameMax)
	case len(value) > xattrSizeMax:
		return fmt.Errorf("extended attribute %q has %d bytes: Linux allows %d", shorten(name), len(value), xattrSizeMax)
	}
	return nil
}

// shorten returns the start of a text for an error message.
func shorten(s string) string {
	const limit = 64
	if len(s) <= limit {
		return s
	}
	return s[:limit] + "…"
}
