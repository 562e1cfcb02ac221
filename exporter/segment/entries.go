package segment

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/slipway-build/slipway/exporter/tree"
)

// Spec is one element of the JSON array that ReadSpec reads: an entry that the
// machine YAML itself asks for.
type Spec struct {
	Path     string `json:"path"` // as tree.Entry.Path
	Type     string `json:"type"` // "file", "dir" or "symlink"
	Mode     uint32 `json:"mode"` // permission bits as a number: 420 is 0644
	UID      uint32 `json:"uid"`
	GID      uint32 `json:"gid"`
	Contents []byte `json:"contents"` // of a file, base64 in JSON
	Source   string `json:"source"`   // path of a file below the source directory, instead of contents
	Link     string `json:"link"`     // target of a symlink
}

// ReadSpec reads a JSON array of Spec and gives its entries in the same order.
// A directory may occur several times: its first entry counts. Any other path
// that occurs twice, or lies below a file or symlink, is an error, and so is
// an unknown member. Sources are opened below source, out of which no symbolic
// link leads; source may be nil if no entry needs it.
func ReadSpec(r io.Reader, source *os.Root) ([]tree.Entry, error) {
	decoder := json.NewDecoder(r)
	decoder.DisallowUnknownFields()
	var specs []Spec
	if err := decoder.Decode(&specs); err != nil {
		return nil, fmt.Errorf("read entries: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("read entries: there is more after the array")
	}

	var entries []tree.Entry
	types := map[string]tree.Type{}
	for _, spec := range specs {
		e, err := spec.entry(source)
		if err != nil {
			return nil, fmt.Errorf("entry %s: %w", spec.Path, err)
		}
		if first, ok := types[e.Path]; ok {
			if first == tree.Dir && e.Type == tree.Dir {
				continue
			}
			return nil, fmt.Errorf("entry %s: the path occurs twice, as %s and as %s", e.Path, first, e.Type)
		}
		for dir := path.Dir(e.Path); dir != "."; dir = path.Dir(dir) {
			if t, ok := types[dir]; ok && t != tree.Dir {
				return nil, fmt.Errorf("entry %s: %s is a %s", e.Path, dir, t)
			}
		}
		types[e.Path] = e.Type
		entries = append(entries, e)
	}
	return entries, nil
}

func (s Spec) entry(source *os.Root) (tree.Entry, error) {
	if err := tree.CheckPath(s.Path); err != nil {
		return tree.Entry{}, err
	}
	if s.Mode&^tree.ModeMask != 0 {
		return tree.Entry{}, fmt.Errorf("mode %#o has bits beyond %#o", s.Mode, tree.ModeMask)
	}
	if s.Type != "file" && (len(s.Contents) > 0 || s.Source != "") {
		return tree.Entry{}, fmt.Errorf("a %s has no contents", s.Type)
	}
	e := tree.Entry{Path: s.Path}
	switch s.Type {
	case "dir":
		e = tree.NewDir(s.Path)
	case "symlink":
		if s.Link == "" {
			return tree.Entry{}, errors.New("a symlink needs a link")
		}
		e = tree.NewSymlink(s.Path, s.Link)
	case "file":
		e = tree.NewFile(s.Path, s.Mode, string(s.Contents))
		if s.Source == "" {
			break
		}
		if len(s.Contents) > 0 {
			return tree.Entry{}, errors.New("contents and source exclude each other")
		}
		var err error
		if e, err = s.fromSource(source); err != nil {
			return tree.Entry{}, err
		}
	default:
		return tree.Entry{}, fmt.Errorf("unknown type %q: use file, dir or symlink", s.Type)
	}
	if s.Type != "symlink" {
		e.Mode = s.Mode
	}
	e.UID, e.GID = s.UID, s.GID
	return e, nil
}

func (s Spec) fromSource(source *os.Root) (tree.Entry, error) {
	if source == nil {
		return tree.Entry{}, fmt.Errorf("source %s: there is no source directory", s.Source)
	}
	info, err := source.Stat(s.Source)
	if err != nil {
		return tree.Entry{}, fmt.Errorf("source: %w", err)
	}
	if !info.Mode().IsRegular() {
		return tree.Entry{}, fmt.Errorf("source %s is no regular file", s.Source)
	}
	return tree.Entry{Path: s.Path, Type: tree.File, Size: info.Size(), Open: func() (tree.Content, error) {
		return source.Open(s.Source)
	}}, nil
}
