package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/console"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/client"
	"github.com/tonistiigi/go-csvvalue"
)

// A File is a file that a build wrote.
type File struct {
	Path string
	Size int64 // in bytes
}

// An output is a destination of the result.
type output struct {
	kind  string // name of BuildKit's exporter
	dest  string // local folder or file, or - for standard output; empty if the result goes elsewhere
	attrs map[string]string

	staging string // folder that holds the result until it is complete
	created string // folder that was created for it
}

type outputs []*output

// parseOutputs parses --output as docker buildx does: DIR, -, or
// type=TYPE,KEY=VALUE.
func parseOutputs(values []string) (outputs, error) {
	var all outputs
	for _, value := range values {
		o := &output{attrs: map[string]string{}}
		switch {
		case value == "-":
			o.kind, o.dest = client.ExporterTar, value
		case !strings.Contains(value, "="):
			o.kind, o.dest = client.ExporterLocal, value
		default:
			fields, err := csvvalue.Fields(value, nil)
			if err != nil {
				return nil, fmt.Errorf("--output %s: %w", value, err)
			}
			for _, field := range fields {
				key, text, ok := strings.Cut(field, "=")
				if !ok {
					return nil, fmt.Errorf("--output %s: %q is not KEY=VALUE", value, field)
				}
				o.attrs[strings.ToLower(key)] = text
			}
			o.kind, o.dest = o.attrs["type"], o.attrs["dest"]
			delete(o.attrs, "type")
			delete(o.attrs, "dest")
			if o.kind == "registry" {
				o.kind, o.attrs["push"] = client.ExporterImage, "true"
			}
			if err := o.normalizeNames(); err != nil {
				return nil, fmt.Errorf("--output %s: %w", value, err)
			}
		}
		if err := o.check(); err != nil {
			return nil, fmt.Errorf("--output %s: %w", value, err)
		}
		all = append(all, o)
	}
	return all, nil
}

// normalizeNames completes the names of an image, because BuildKit takes them as
// they are.
func (o *output) normalizeNames() error {
	if o.attrs["name"] == "" || o.kind != client.ExporterImage && o.kind != client.ExporterDocker {
		return nil
	}
	names := strings.Split(o.attrs["name"], ",")
	for i, name := range names {
		named, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			return fmt.Errorf("name %q: %w", name, err)
		}
		names[i] = reference.TagNameOnly(named).String()
	}
	o.attrs["name"] = strings.Join(names, ",")
	return nil
}

func (o *output) check() error {
	switch {
	case o.kind == "":
		return errors.New("requires type=TYPE, for example type=local,dest=DIR")
	case o.kind == client.ExporterLocal && (o.dest == "" || o.dest == "-"):
		return errors.New("requires dest=DIR")
	case o.isFile() && o.dest == "":
		return errors.New("requires dest=FILE")
	case o.isFile() && o.dest == "-":
		if _, err := console.ConsoleFromFile(os.Stdout); err == nil {
			return errors.New("standard output is a terminal: redirect it, or use dest=FILE")
		}
	case o.isFile():
		if info, err := os.Stat(o.dest); err == nil && info.IsDir() {
			return fmt.Errorf("%s is a folder: requires dest=FILE", o.dest)
		}
	}
	return nil
}

// isStore reports whether the output is an OCI layout in a folder. BuildKit adds
// missing blobs to it, and the index last.
func (o *output) isStore() bool {
	tar, err := strconv.ParseBool(o.attrs["tar"])
	return o.kind == client.ExporterOCI && err == nil && !tar
}

// isFile reports whether the output is a single file.
func (o *output) isFile() bool {
	switch o.kind {
	case client.ExporterTar, client.ExporterOCI, client.ExporterDocker:
		return !o.isStore() && !o.isLoaded()
	}
	return false
}

// isLoaded reports whether the output is an image that is loaded into a Docker
// Engine.
func (o *output) isLoaded() bool {
	return o.kind == client.ExporterDocker && o.dest == "" && o.attrs["tar"] == ""
}

// isDevice reports whether the output goes to a device or a pipe, for example
// /dev/null, which a file must not replace.
func (o *output) isDevice() bool {
	info, err := os.Stat(o.dest)
	return o.isFile() && err == nil && !info.Mode().IsRegular()
}

// mobyExporter writes images to the store of the Docker Engine that BuildKit is
// part of.
const mobyExporter = "moby"

// exports prepares the destinations and describes them to BuildKit.
func (all outputs) exports(ctx context.Context, isEngine func() bool) ([]client.ExportEntry, error) {
	var entries []client.ExportEntry
	for _, o := range all {
		e := client.ExportEntry{Type: o.kind, Attrs: o.attrs}
		var err error
		switch {
		case o.kind == client.ExporterLocal:
			err = o.stage(o.dest)
			e.OutputDir = o.staging
		case o.isStore():
			e.OutputDir = o.dest
		case (o.isLoaded() || o.kind == client.ExporterImage) && isEngine():
			e.Type = mobyExporter
		case o.isLoaded():
			engine := o.attrs["context"]
			delete(o.attrs, "context")
			e.Output = func(map[string]string) (io.WriteCloser, error) { return loadImage(ctx, engine) }
		case o.dest == "-":
			e.Output = func(map[string]string) (io.WriteCloser, error) { return os.Stdout, nil }
		case o.isDevice():
			e.Output = func(map[string]string) (io.WriteCloser, error) { return os.OpenFile(o.dest, os.O_WRONLY, 0) }
		case o.isFile():
			err = o.stage(filepath.Dir(o.dest))
			e.Output = func(map[string]string) (io.WriteCloser, error) {
				return os.Create(filepath.Join(o.staging, filepath.Base(o.dest)))
			}
		}
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// stage creates the staging folder beside the final names, so that the files can
// be renamed.
func (o *output) stage(dir string) (err error) {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		o.created = dir
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	o.staging, err = os.MkdirTemp(dir, ".slipway-")
	return err
}

// keep moves the files from the staging folders to their final names. Files that
// a build left in the folder before are as little trusted as those of this build:
// a symbolic link is replaced, never followed.
func (all outputs) keep() ([]File, error) {
	var files []File
	for _, o := range all {
		if o.staging == "" {
			continue
		}
		kept, err := o.keep()
		if err != nil {
			return nil, err
		}
		files = append(files, kept...)
		o.created = ""
	}
	return files, nil
}

// keep moves the files of one output.
func (o *output) keep() ([]File, error) {
	root, err := os.OpenRoot(filepath.Dir(o.staging))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return move(root, filepath.Base(o.staging), ".")
}

// move moves what the directory from contains into the directory to. It returns
// the files with their new paths.
func move(root *os.Root, from, to string) ([]File, error) {
	entries, err := readDir(root, from)
	if err != nil {
		return nil, err
	}
	var files []File
	for _, e := range entries {
		source, target := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		if err := makeRoom(root, target, info); err != nil {
			return nil, err
		}
		if !e.IsDir() {
			files = append(files, File{filepath.Join(root.Name(), target), info.Size()})
			if err := root.Rename(source, target); err != nil {
				return nil, err
			}
			continue
		}
		moved, err := move(root, source, target)
		if err != nil {
			return nil, err
		}
		files = append(files, moved...)
		if err := root.Chmod(target, info.Mode()); err != nil {
			return nil, err
		}
		if err := root.Chtimes(target, time.Time{}, info.ModTime()); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// makeRoom creates the directory that info describes, or removes what is in the
// way of it or of another file.
func makeRoom(root *os.Root, name string, info fs.FileInfo) error {
	old, err := root.Lstat(name)
	switch {
	case err == nil && old.IsDir() && info.IsDir():
		return root.Chmod(name, old.Mode()|0o700)
	case err == nil && (old.IsDir() || info.IsDir()):
		err = root.RemoveAll(name)
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	}
	if err == nil && info.IsDir() {
		err = root.Mkdir(name, 0o700)
	}
	return err
}

// readDir returns the entries of a directory in the order of their names.
func readDir(root *os.Root, name string) ([]fs.DirEntry, error) {
	dir, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, err
}

// explain adds to the error of a build that the disk of an output is full.
// BuildKit reports only that the transfer ended.
func (all outputs) explain(err error) error {
	for _, o := range all {
		if o.staging == "" {
			continue
		}
		if full := probe(o.staging); errors.Is(full, syscall.ENOSPC) || errors.Is(full, syscall.EDQUOT) {
			return fmt.Errorf("%w; %w: free space, or choose another folder with --output", err, full)
		}
	}
	return err
}

// probe reports why nothing can be written into a directory.
func probe(dir string) error {
	f, err := os.CreateTemp(dir, "")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(make([]byte, 64<<10))
	return errors.Join(err, f.Close())
}

// discard removes what was not kept.
func (all outputs) discard() {
	for _, o := range all {
		if o.staging != "" {
			os.RemoveAll(o.staging)
		}
		if o.created != "" {
			os.Remove(o.created)
		}
	}
}
