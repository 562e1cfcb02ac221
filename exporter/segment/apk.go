package segment

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/slipway-build/slipway/exporter/tree"
)

// apkDatabase is where Alpine's package manager lists the installed packages.
const apkDatabase = "lib/apk/db/installed"

// apkDatabaseOf returns the apk database among the entries of an image, if it is a
// regular file.
func apkDatabaseOf(entries []tree.Entry) (tree.Entry, bool) {
	for _, e := range entries {
		if e.Path == apkDatabase && e.Type == tree.File {
			return e, true
		}
	}
	return tree.Entry{}, false
}

// databases are the apk databases of segments.
type databases struct {
	files []string
	last  int // index of the segment with the last one
}

func findDatabases(segments []Dir) (databases, error) {
	var found databases
	for i, segment := range segments {
		name := filepath.Join(segment.Path, APKName)
		switch _, err := os.Stat(name); {
		case err == nil:
			found.files, found.last = append(found.files, name), i
		case !errors.Is(err, fs.ErrNotExist):
			return found, err
		}
	}
	return found, nil
}

// mergedAfter reports whether the merged database follows the segment with an
// index. A single database needs no merge.
func (d databases) mergedAfter(segment int) bool {
	return len(d.files) > 1 && segment == d.last
}

// merge returns the merged database: all of them, with two newlines after each.
func (d databases) merge() (tree.Entry, error) {
	var merged []byte
	for _, name := range d.files {
		data, err := os.ReadFile(name)
		if err != nil {
			return tree.Entry{}, fmt.Errorf("merge apk databases: %w", err)
		}
		merged = append(append(merged, data...), "\n\n"...)
	}
	return tree.NewFile(apkDatabase, 0o644, string(merged)), nil
}
