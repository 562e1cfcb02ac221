package segment

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/slipway-build/slipway/exporter/tree"
)

// linkMark precedes the targets of symbolic links in a list of names.
const linkMark = " -> "

// writeNames writes a list of entries, one per line. A line has the quoted path,
// followed by a slash for a directory, or by an arrow and the quoted target for a
// symbolic link. Then each extended attribute follows: its quoted name, an equals
// sign and its quoted value.
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
		for _, name := range slices.Sorted(maps.Keys(e.Xattrs)) {
			line = strconv.AppendQuote(append(line, ' '), name)
			line = strconv.AppendQuote(append(line, '='), e.Xattrs[name])
		}
		if _, err := buf.Write(append(line, '\n')); err != nil {
			return err
		}
	}
	return buf.Flush()
}

// readNames reads a list that writeNames wrote. Its entries have paths, links and
// extended attributes. Their types are Dir, Symlink, or File for all others.
func readNames(name string) ([]tree.Entry, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var entries []tree.Entry
	for line := range strings.Lines(string(data)) {
		e, err := parseName(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, fmt.Errorf("%s: line %d: %w", name, len(entries)+1, err)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func parseName(line string) (e tree.Entry, err error) {
	e.Type = tree.File
	if e.Path, line, err = cutQuoted(line); err != nil {
		return e, err
	}
	if rest, ok := strings.CutPrefix(line, "/"); ok {
		e.Type, line = tree.Dir, rest
	} else if rest, ok := strings.CutPrefix(line, linkMark); ok {
		e.Type = tree.Symlink
		if e.Link, line, err = cutQuoted(rest); err != nil {
			return e, err
		}
	}
	for line != "" {
		name, rest, err := cutQuoted(strings.TrimPrefix(line, " "))
		if err != nil {
			return e, err
		}
		value, rest, err := cutQuoted(strings.TrimPrefix(rest, "="))
		if err != nil {
			return e, err
		}
		if e.Xattrs == nil {
			e.Xattrs = map[string]string{}
		}
		e.Xattrs[name], line = value, rest
	}
	return e, nil
}

// cutQuoted returns the quoted text at the start of s, and the rest.
func cutQuoted(s string) (text, rest string, err error) {
	quoted, err := strconv.QuotedPrefix(s)
	if err != nil {
		return "", "", err
	}
	text, err = strconv.Unquote(quoted)
	return text, s[len(quoted):], err
}
