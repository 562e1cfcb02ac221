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

// write creates or replaces a file atomically: a reader sees the old content or
// all of the new one.
func (c *config) write(name string, contents []byte, mode os.FileMode) error {
	if err := c.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	if err := c.writePartial(contents, mode); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return c.root.Rename(partial, name)
}

func (c *config) writePartial(contents []byte, mode os.FileMode) error {
	f, err := c.root.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
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
