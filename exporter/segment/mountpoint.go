package segment

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/contract"
)

// A MountPoint is a path in an image on which a container mounts something. It
// must exist if the root filesystem of the container is read-only.
type MountPoint struct {
	Path string // below the root of the image
	Type string // contract.Directory or contract.File; empty if it is unknown
}

// ParseMountPoint parses "dir:PATH", "file:PATH" or ":PATH".
func ParseMountPoint(text string) (MountPoint, error) {
	kind, path, ok := strings.Cut(text, ":")
	m := MountPoint{Path: strings.Trim(path, "/"), Type: kind}
	if !ok || kind != "" && kind != contract.Directory && kind != contract.File {
		return m, fmt.Errorf("mount point %q: must be dir:PATH, file:PATH or :PATH", text)
	}
	if err := tree.CheckPath(m.Path); err != nil {
		return m, fmt.Errorf("mount point: %w", err)
	}
	return m, nil
}

// addMountPoints adds those that the image does not have.
func addMountPoints(entries []tree.Entry, points []MountPoint) ([]tree.Entry, error) {
	for _, m := range points {
		var err error
		switch m.Type {
		case contract.Directory:
			entries, err = tree.Add(entries, tree.NewDir(m.Path))
		case contract.File:
			entries, err = tree.Add(entries, tree.NewFile(m.Path, 0o644, ""))
		default:
			if _, err = tree.Find(entries, m.Path); errors.Is(err, fs.ErrNotExist) {
				err = fmt.Errorf("/%s: not in the image, and unknown whether it must be a file or a directory. "+
					"Without it a container with readonly cannot start: "+
					"add it to the image, or for a directory add runtime: {mkdir: [%[1]q]} to the container", m.Path)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("mount point %w", err)
		}
	}
	return entries, nil
}
