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

// File is one that a build made.
type File struct {
	Path string
	Size int64 // in bytes
}

// output is one place where a build's result goes.
type output struct {
	kind  string // BuildKit's name of the exporter
	dest  string // folder or file here; empty if the result goes elsewhere, - for standard output
	attrs map[string]string

	staged string // where the result is until it is whole
	made   string // folder that was made for it
}

type outputs []*output

// parseOutputs reads --output in docker buildx's forms: DIR, -, or type=TYPE,KEY=VALUE.
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
		return errors.New("needs type=TYPE, such as type=local,dest=DIR")
	case o.kind == client.ExporterLocal && (o.dest == "" || o.dest == "-"):
		return errors.New("needs dest=DIR")
	case o.isFile() && o.dest == "":
		return errors.New("needs dest=FILE")
	case o.isFile() && o.dest == "-":
		if _, err := console.ConsoleFromFile(os.Stdout); err == nil {
			return errors.New("standard output is a terminal: redirect it, or give dest=FILE")
		}
	}
	return nil
}

// isStore tells an OCI layout that is a folder. BuildKit adds to it what it
// lacks, the index last.
func (o *output) isStore() bool {
	tar, err := strconv.ParseBool(o.attrs["tar"])
	return o.kind == client.ExporterOCI && err == nil && !tar
}

func (o *output) isFile() bool {
	switch o.kind {
	case client.ExporterTar, client.ExporterOCI, client.ExporterDocker:
		return !o.isStore()
	}
	return false
}

// exports prepares the places and describes them to BuildKit.
func (all outputs) exports() ([]client.ExportEntry, error) {
	var entries []client.ExportEntry
	for _, o := range all {
		e := client.ExportEntry{Type: o.kind, Attrs: o.attrs}
		var err error
		switch {
		case o.kind == client.ExporterLocal:
			err = o.stage(o.dest)
			e.OutputDir = o.staged
		case o.isStore():
			e.OutputDir = o.dest
		case o.dest == "-":
			e.Output = func(map[string]string) (io.WriteCloser, error) { return os.Stdout, nil }
		case o.isFile():
			err = o.stage(filepath.Dir(o.dest))
			e.Output = func(map[string]string) (io.WriteCloser, error) {
				return os.Create(filepath.Join(o.staged, filepath.Base(o.dest)))
			}
		}
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// stage makes a folder beside the final names, so that files only need to be renamed.
func (o *output) stage(dir string) (err error) {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		o.made = dir
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	o.staged, err = os.MkdirTemp(dir, ".slipway-")
	return err
}

// keep gives all files their names.
func (all outputs) keep() ([]File, error) {
	var files []File
	for _, o := range all {
		if o.staged == "" {
			continue
		}
		err := filepath.WalkDir(o.staged, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			name, err := filepath.Rel(o.staged, path)
			if err != nil {
				return err
			}
			target := filepath.Join(filepath.Dir(o.staged), name)
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
		o.made = ""
	}
	return files, nil
}

// discard removes what is not kept.
func (all outputs) discard() {
	for _, o := range all {
		if o.staged != "" {
			os.RemoveAll(o.staged)
		}
		if o.made != "" {
			os.Remove(o.made)
		}
	}
}
