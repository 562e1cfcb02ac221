package segment

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/klauspost/compress/zstd"

	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/contract"
)

// Entries writes the segment of a spec file, see ReadSpec. The spec can be
// compressed, see CompressSpec. Sources are files below the directory source,
// which can be "" if no entry needs it.
func (p Packer) Entries(spec, source string) error {
	f, err := os.Open(spec)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := specReader(f)
	if err != nil {
		return err
	}
	defer r.Close()
	var root *os.Root
	if source != "" {
		if root, err = os.OpenRoot(source); err != nil {
			return err
		}
		defer root.Close()
	}
	entries, err := ReadSpec(r, root)
	if err != nil {
		return err
	}
	return p.write(entries)
}

// CompressSpec compresses a spec for [Packer.Entries].
func CompressSpec(spec []byte) ([]byte, error) {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	return encoder.EncodeAll(spec, nil), encoder.Close()
}

// specReader returns the JSON of a spec. JSON cannot start with the magic number
// of zstd.
func specReader(r io.Reader) (io.ReadCloser, error) {
	buffered := bufio.NewReader(r)
	if head, _ := buffered.Peek(len(zstdMagic)); string(head) != zstdMagic {
		return io.NopCloser(buffered), nil
	}
	decoder, err := zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	return decoder.IOReadCloser(), nil
}

// ReadSpec reads a JSON array of contract.Entry and returns its entries in the
// same order. A directory can occur several times; its first entry wins. It is an
// error if any other path occurs twice or is below a file or symlink, or if an
// entry has an unknown member. Sources are files below source, and symbolic links
// cannot lead out of it. The source can be nil if no entry needs it.
func ReadSpec(r io.Reader, source *os.Root) ([]tree.Entry, error) {
	decoder := json.NewDecoder(r)
	decoder.DisallowUnknownFields()
	switch start, err := decoder.Token(); {
	case err != nil:
		return nil, fmt.Errorf("read entries: %w", err)
	case start == nil: // null, which is an empty array
		return nil, endOfSpec(decoder)
	case start != json.Delim('['):
		return nil, errors.New("read entries: not an array")
	}
	var entries []tree.Entry
	types := map[string]tree.Type{}
	for decoder.More() { // one by one, because the text is larger than the entries
		var spec contract.Entry
		if err := decoder.Decode(&spec); err != nil {
			return nil, fmt.Errorf("read entries: %w", err)
		}
		e, err := newEntry(spec, source)
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
	if _, err := decoder.Token(); err != nil { // the end of the array
		return nil, fmt.Errorf("read entries: %w", err)
	}
	return entries, endOfSpec(decoder)
}

// endOfSpec returns an error if a spec does not end here.
func endOfSpec(decoder *json.Decoder) error {
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("read entries: unexpected data after the array")
	}
	return nil
}

// newEntry returns the entry that s describes.
func newEntry(s contract.Entry, source *os.Root) (tree.Entry, error) {
	if err := tree.CheckPath(s.Path); err != nil {
		return tree.Entry{}, err
	}
	if s.Mode&^tree.ModeMask != 0 {
		return tree.Entry{}, fmt.Errorf("mode %#o has bits beyond %#o", s.Mode, tree.ModeMask)
	}
	if s.Type != contract.File && (len(s.Contents) > 0 || s.Source != "") {
		return tree.Entry{}, fmt.Errorf("a %s has no contents", s.Type)
	}
	e := tree.Entry{Path: s.Path}
	switch s.Type {
	case contract.Directory:
		e = tree.NewDir(s.Path)
	case contract.Symlink:
		if s.Link == "" {
			return tree.Entry{}, errors.New("a symlink needs a link")
		}
		e = tree.NewSymlink(s.Path, s.Link)
	case contract.File:
		e = tree.NewFile(s.Path, s.Mode, string(s.Contents))
		if s.Source == "" {
			break
		}
		if len(s.Contents) > 0 {
			return tree.Entry{}, errors.New("use either contents or source")
		}
		var err error
		if e, err = fromSource(s, source); err != nil {
			return tree.Entry{}, err
		}
	default:
		return tree.Entry{}, fmt.Errorf("unknown type %q: use file, dir or symlink", s.Type)
	}
	if s.Type != contract.Symlink {
		e.Mode = s.Mode
	}
	e.UID, e.GID = s.UID, s.GID
	return e, nil
}

// fromSource returns the entry of a file whose content is in source.
func fromSource(s contract.Entry, source *os.Root) (tree.Entry, error) {
	if source == nil {
		return tree.Entry{}, fmt.Errorf("source %s: there is no source directory", s.Source)
	}
	info, err := source.Stat(s.Source)
	if err != nil {
		return tree.Entry{}, fmt.Errorf("source: %w", err)
	}
	if !info.Mode().IsRegular() {
		return tree.Entry{}, fmt.Errorf("source %s is not a regular file", s.Source)
	}
	return tree.Entry{Path: s.Path, Type: tree.File, Size: info.Size(), Open: func() (tree.Content, error) {
		return source.Open(s.Source)
	}}, nil
}
