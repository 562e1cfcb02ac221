package segment

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/slipway-build/slipway/exporter/tree"
)

// linkMark stands before the targets of symbolic links in a list of names.
const linkMark = " -> "

// writeNames lists entries, each on a line of its own: the quoted path, with a
// slash behind it if it is a directory, or an arrow and the quoted target if it
// is a symbolic link.
func writeNames(w io.Writer, entries []tree.Entry) error {
	buf := bufio.NewWriter(w)
	var line []byte
	for _, e := range entries {
		line = strconv.AppendQuote(line[:0], e.Path)
		switch e.Type {
		case tree.Dir:
			line = append(line, '/')
		case tree.Symlink:
			line = strconv.AppendQuote(append(line, linkMark...), e.Link)
		}
		buf.Write(append(line, '\n'))
	}
	return buf.Flush()
}

// readNames reads what writeNames wrote. Of the entries only path, link and
// whether they are directories or symbolic links is known.
func readNames(name string) ([]tree.Entry, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var entries []tree.Entry
	for line := range strings.Lines(string(data)) {
		e, err := parseName(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("line %d: %w", len(entries)+1, err)}
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func parseName(line string) (tree.Entry, error) {
	quoted, err := strconv.QuotedPrefix(line)
	if err != nil {
		return tree.Entry{}, err
	}
	path, err := strconv.Unquote(quoted)
	if err != nil {
		return tree.Entry{}, err
	}
	switch rest := line[len(quoted):]; {
	case rest == "":
		return tree.Entry{Path: path, Type: tree.File}, nil
	case rest == "/":
		return tree.Entry{Path: path, Type: tree.Dir}, nil
	case strings.HasPrefix(rest, linkMark):
		target, err := strconv.Unquote(rest[len(linkMark):])
		return tree.Entry{Path: path, Type: tree.Symlink, Link: target}, err
	}
	return tree.Entry{}, errors.New("not a name")
}
