package main

import (
	"fmt"
	"os"
	"path"
)

// partial is the name of the file that is being written. Trees must not contain
// it.
const partial = ".metadata-partial"

// config is the directory of the results. Neither paths nor symbolic links lead
// out of it.
type config struct {
	root *os.Root
}

func openConfig(dir string) (*config, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &config{root}, nil
}

func (c *config) close() error { return c.root.Close() }

func (c *config) read(name string) ([]byte, error) { return c.root.ReadFile(name) }

// readAtMost returns the content of a regular file that has at most max bytes.
func (c *config) readAtMost(name string, max int64) ([]byte, error) {
	info, err := c.root.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > max {
		return nil, fmt.Errorf("%s: not a regular file of at most %d bytes", name, max)
	}
	return c.root.ReadFile(name)
}

// write creates or replaces a file atomically: a reader sees the old content or
// all of the new one. But it fills an empty file in place, because a container
// may bind it, see reserve.
func (c *config) write(name string, contents []byte, mode os.FileMode) error {
	if info, err := c.root.Lstat(name); err == nil && info.Mode().IsRegular() && info.Size() == 0 {
		return c.writeTo(name, os.O_WRONLY, contents, mode)
	}
	dir := path.Dir(name)
	if err := c.root.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	temporary := path.Join(dir, partial) // on the same filesystem
	if err := c.writeTo(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, contents, mode); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return c.root.Rename(temporary, name)
}

// reserve creates an empty file for write, unless there is a file.
func (c *config) reserve(name string, mode os.FileMode) error {
	if err := c.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := c.root.OpenFile(name, os.O_WRONLY|os.O_CREATE, mode)
	if err != nil {
		return err
	}
	return f.Close()
}

func (c *config) writeTo(name string, flags int, contents []byte, mode os.FileMode) error {
	f, err := c.root.OpenFile(name, flags, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(contents); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	return f.Close()
}

func (c *config) writeNode(n node) error {
	if !n.directory {
		return c.write(n.path, []byte(n.content), n.mode)
	}
	if err := c.root.MkdirAll(n.path, 0o755); err != nil {
		return err
	}
	return c.root.Chmod(n.path, n.mode)
}
