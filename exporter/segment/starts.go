package segment

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/contract"
)

// CheckStarts returns an error if the files of a machine do not allow a container
// to start: if its program does not exist, or if it mounts a file on a directory
// or the reverse. What can only be known when the machine runs is not an error.
// Entries are the root filesystem of the machine.
func CheckStarts(entries []tree.Entry, starts []contract.Start) error {
	if len(starts) == 0 {
		return nil
	}
	all := make(map[string]tree.Type, len(entries))
	links := map[string]string{}
	for _, e := range entries {
		all[e.Path] = e.Type
		if e.Type == tree.Symlink {
			links[e.Path] = e.Link
		}
	}
	machine := view{types: all, links: links, hidden: map[string]bool{"containers": true}}
	for _, dir := range contract.MountPoints() {
		machine.hidden[dir] = true
	}
	var failed []error
	for _, s := range starts {
		container := view{types: all, links: links, root: s.Root, hidden: map[string]bool{"dev": true, "proc": true, "sys": true}}
		for _, m := range s.Mounts {
			container.hidden[strings.TrimPrefix(path.Clean(m.Destination), "/")] = true
		}
		failed = append(failed, container.checkProgram(s))
		for _, m := range s.Mounts {
			failed = append(failed, container.checkMount(s.Name, m, machine))
		}
	}
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("%w (to build it anyway: # check=skip=NeverStarts)", err)
	}
	return nil
}

func (v view) checkProgram(s contract.Start) error {
	for _, name := range s.Programs {
		if kind := v.lookup(name); kind == tree.File || kind == unknown {
			return nil
		}
	}
	switch {
	case len(s.Programs) == 0:
		return nil
	case !strings.Contains(s.Command, "/"):
		return fmt.Errorf("%s: command: the image has no program %q in %s", s.Name, s.Command, strings.Join(parents(s.Programs), ", "))
	case v.lookup(s.Programs[0]) == tree.Dir:
		return fmt.Errorf("%s: command: %q is a directory", s.Name, s.Command)
	}
	return fmt.Errorf("%s: command: the image has no file %q", s.Name, s.Command)
}

func parents(files []string) (dirs []string) {
	for _, file := range files {
		dirs = append(dirs, path.Dir(file))
	}
	return dirs
}

func (v view) checkMount(name string, m contract.StartMount, machine view) error {
	delete(v.hidden, strings.TrimPrefix(path.Clean(m.Destination), "/"))
	point := v.lookup(m.Destination)
	v.hidden[strings.TrimPrefix(path.Clean(m.Destination), "/")] = true
	what, source := "a filesystem", tree.Dir
	if m.Source != "" {
		what, source = "a directory", machine.lookup(m.Source)
		if source == tree.File {
			what = "a file"
		}
	}
	if point == source || point == unknown || source == unknown || point == missing || source == missing {
		return nil
	}
	of := "a directory"
	if point == tree.File {
		of = "a file"
	}
	return fmt.Errorf("%s: mount on %s: %s cannot be mounted on %s of the image", name, m.Destination, what, of)
}

// A view is a root filesystem, as far as the files of the machine determine it.
type view struct {
	types  map[string]tree.Type // of all files of the machine
	links  map[string]string    // targets of symbolic links
	root   string               // directory of the root filesystem in the machine; "" is that of the machine
	hidden map[string]bool      // paths on which something is mounted
}

// What lookup returns for a path whose type is not known, and for one that does
// not exist. They are types that no entry has.
const (
	unknown = tree.Type(0xfe)
	missing = tree.Type(0xff)
)

// maxLinks is the limit of Linux for symbolic links in the resolution of a path.
const maxLinks = 40

// lookup returns the type of the file that an absolute path resolves to: Dir, or
// File for everything else that exists.
func (v view) lookup(name string) tree.Type {
	at, kind, followed := "", tree.Dir, 0
	for rest := strings.Split(name, "/"); len(rest) > 0; {
		element := rest[0]
		rest = rest[1:]
		switch element {
		case "", ".":
			continue
		case "..":
			at, kind = strings.TrimPrefix(path.Dir("/"+at), "/"), tree.Dir
			continue
		}
		if kind != tree.Dir {
			return missing
		}
		next := path.Join(at, element)
		if v.hidden[next] {
			return unknown
		}
		found, ok := v.types[path.Join(v.root, next)]
		switch {
		case !ok:
			return missing
		case found != tree.Symlink:
			at, kind = next, found
			continue
		}
		if followed++; followed > maxLinks {
			return missing
		}
		target := v.links[path.Join(v.root, next)]
		if strings.HasPrefix(target, "/") {
			at = ""
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	if kind != tree.Dir {
		return tree.File
	}
	return tree.Dir
}
