package client

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/console"
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
		}
		if err := o.check(); err != nil {
			return nil, fmt.Errorf("--output %s: %w", value, err)
		}
		all = append(all, o)
	}
	return all, nil
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
		return !o.isStore()
	}
	return false
}

// exports prepares the destinations and describes them to BuildKit.
func (all outputs) exports() ([]client.ExportEntry, error) {
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
		case o.dest == "-":
			e.Output = func(map[string]string) (io.WriteCloser, error) { return os.Stdout, nil }
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

// keep moves the files from the staging folders to their final names.
func (all outputs) keep() ([]File, error) {
	var files []File
	for _, o := range all {
		if o.staging == "" {
			continue
		}
		err := filepath.WalkDir(o.staging, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			name, err := filepath.Rel(o.staging, path)
			if err != nil {
				return err
			}
			target := filepath.Join(filepath.Dir(o.staging), name)
			if d.IsDir() {
				return os.MkdirAll(target, 0o755)
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			files = append(files, File{target, info.Size()})
			return os.Rename(path, target)
		})
		if err != nil {
			return nil, err
		}
		o.created = ""
	}
	return files, nil
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
