package tree

import (
	"fmt"
	"io"
)

// A Collector collects the entries of a file system that somebody else wrote.
// Its memory is bounded: a damaged or hostile file system, whose directories
// may contain each other, exceeds a limit of Linux or of a tree in memory.
type Collector struct {
	spent   budget
	entries []Entry
	paths   map[string]bool
}

// Add adds an entry. It returns an error that names the entry if Linux cannot
// create it, if there is one with the same path, or if the tree is too large.
func (c *Collector) Add(e Entry) error {
	if err := e.check(); err != nil {
		return err
	}
	if c.paths[e.Path] {
		return fmt.Errorf("%q: there are two files of this name", shorten(e.Path))
	}
	if err := c.spent.spend(e.metadata()); err != nil {
		return fmt.Errorf("the file system has %w", err)
	}
	if c.paths == nil {
		c.paths = map[string]bool{}
	}
	c.paths[e.Path] = true
	c.entries = append(c.entries, e)
	return nil
}

// Entries returns the entries, sorted by path.
func (c *Collector) Entries() []Entry {
	Sort(c.entries)
	return c.entries
}

// NewContent returns the content of a file in r, which has size bytes. It does
// not close r.
func NewContent(r io.ReaderAt, size int64) Content {
	return sectionContent{io.NewSectionReader(r, 0, size)}
}
