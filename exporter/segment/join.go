package segment

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/slipway-build/slipway/exporter/tree"
)

// Names of the files in a segment's directory.
const (
	FileName = "segment"
	// APKName holds the package database of an init image, for Join to merge.
	APKName = "apk-installed"
)

// apkDatabase is where Alpine's package manager lists what is installed.
const apkDatabase = "lib/apk/db/installed"

// APKDatabase finds the regular file of the apk database among the entries of
// an image.
func APKDatabase(entries []tree.Entry) (tree.Entry, bool) {
	for _, e := range entries {
		if e.Path == apkDatabase && e.Type == tree.File {
			return e, true
		}
	}
	return tree.Entry{}, false
}

// Join writes to w the initramfs that the segments in dirs make, in that
// order. A microcode archive goes first and uncompressed, as the kernel wants
// it (Linux, Documentation/arch/x86/microcode.rst); ucode is its file name, ""
// or a missing file for none.
//
// If several of dirs have an apk database, a segment that holds all of them
// follows the last of these, compressed as that one is.
func Join(w io.Writer, ucode string, dirs []string) error {
	if ucode != "" {
		err := appendFile(w, ucode)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("microcode: %w", err)
		}
	}
	var databases []string
	lastDatabase := -1
	for i, dir := range dirs {
		name := filepath.Join(dir, APKName)
		switch _, err := os.Stat(name); {
		case err == nil:
			databases = append(databases, name)
			lastDatabase = i
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	for i, dir := range dirs {
		name := filepath.Join(dir, FileName)
		if err := appendFile(w, name); err != nil {
			return err
		}
		if i == lastDatabase && len(databases) > 1 {
			if err := mergeDatabases(w, databases, name); err != nil {
				return fmt.Errorf("merge apk databases: %w", err)
			}
		}
	}
	return nil
}

// appendFile copies a file, which the kernel needs aligned, to w.
func appendFile(w io.Writer, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.Copy(w, f)
	if err != nil {
		return err
	}
	_, err = w.Write(make([]byte, -n&(alignment-1)))
	return err
}

// mergeDatabases writes a segment with one apk database of all, each followed
// by two newlines, compressed like the segment in the file like.
func mergeDatabases(w io.Writer, databases []string, like string) error {
	f, err := os.Open(like)
	if err != nil {
		return err
	}
	defer f.Close()
	compression, err := detect(bufio.NewReader(f))
	if err != nil {
		return fmt.Errorf("%s: %w", like, err)
	}
	var merged []byte
	for _, name := range databases {
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		merged = append(append(merged, data...), "\n\n"...)
	}
	return Write(w, []tree.Entry{tree.NewFile(apkDatabase, 0o644, string(merged))}, compression)
}
