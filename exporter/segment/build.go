package segment

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/slipway-build/slipway/exporter/output"
	"github.com/slipway-build/slipway/exporter/tree"
)

// Pack makes the segment of an image whose root filesystem is in the directory
// in, to stand at prefix ("" for the root) in the machine. It writes FileName
// into the directory out and, for RulesInit, APKName if the image has such a
// database. What an initramfs cannot hold is told by warn.
func Pack(in, prefix string, rules Rules, c Compression, out string, warn func(string)) error {
	if prefix != "" {
		if err := tree.CheckPath(prefix); err != nil {
			return fmt.Errorf("prefix: %w", err)
		}
	}
	entries, err := tree.ReadDir(in)
	if err != nil {
		return err
	}
	if rules == RulesInit {
		if database, ok := APKDatabase(entries); ok {
			err := output.File(filepath.Join(out, APKName), func(f *os.File) error {
				return writeContent(f, database, database.Size, make([]byte, 64<<10))
			})
			if err != nil {
				return err
			}
		}
	}
	if entries, err = Apply(rules, entries); err != nil {
		return err
	}
	warnCapabilities(entries, warn)
	return toFile(out, Under(prefix, entries), c)
}

// Names of the files that Kernel writes beside FileName.
const (
	KernelName = "kernel"
	UcodeName  = "ucode.cpio"
)

// Kernel takes apart a kernel image whose root filesystem is in the directory
// in. It writes into the directory out the kernel itself (binary), as
// KernelName, the microcode archive (ucode, "" for none; it may be missing), as
// UcodeName, and the segment of the tar archive with the modules (archive, ""
// for none), whose entries keep their names and attributes.
func Kernel(in, binary, archive, ucode string, c Compression, out string, warn func(string)) error {
	root, err := os.OpenRoot(in)
	if err != nil {
		return err
	}
	defer root.Close()
	missing := func(name, advice string) error {
		return fmt.Errorf("kernel image has no file %q; it holds %s; %s", name, listFiles(root), advice)
	}
	if found, err := take(root, binary, filepath.Join(out, KernelName)); err != nil {
		return fmt.Errorf("kernel image: %w", err)
	} else if !found {
		return missing(binary, "set kernel.binary to the kernel's path")
	}
	if ucode != "" {
		if _, err := take(root, ucode, filepath.Join(out, UcodeName)); err != nil {
			return fmt.Errorf("kernel image: %w", err)
		}
	}
	if archive == "" {
		return nil
	}
	if found, err := isFile(root, archive); err != nil {
		return fmt.Errorf("kernel image: %w", err)
	} else if !found {
		return missing(archive, "set kernel.tar to the path of the archive with the modules, or to none")
	}
	f, err := root.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	entries, err := tree.ReadTar(f, info.Size())
	if err != nil {
		return fmt.Errorf("kernel image: %s: %w", archive, err)
	}
	warnCapabilities(entries, warn)
	return toFile(out, entries, c)
}

// take copies a regular file out of root, if it is there.
func take(root *os.Root, name, to string) (bool, error) {
	found, err := isFile(root, name)
	if err != nil || !found {
		return false, err
	}
	return true, output.File(to, func(f *os.File) error {
		src, err := root.Open(name)
		if err != nil {
			return err
		}
		defer src.Close()
		_, err = io.Copy(f, src)
		return err
	})
}

func isFile(root *os.Root, name string) (bool, error) {
	info, err := root.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && info.Mode().IsRegular(), err
}

// Entries makes the segment of a spec file (see ReadSpec), with sources below
// the directory source; "" if there are none.
func Entries(spec, source string, c Compression, out string) error {
	f, err := os.Open(spec)
	if err != nil {
		return err
	}
	defer f.Close()
	var root *os.Root
	if source != "" {
		if root, err = os.OpenRoot(source); err != nil {
			return err
		}
		defer root.Close()
	}
	entries, err := ReadSpec(f, root)
	if err != nil {
		return err
	}
	return toFile(out, entries, c)
}

func toFile(dir string, entries []tree.Entry, c Compression) error {
	return output.File(filepath.Join(dir, FileName), func(f *os.File) error {
		return Write(f, entries, c)
	})
}

// listFiles names the files of an image for an error message: all of them
// unless they are many.
func listFiles(root *os.Root) string {
	const limit = 10
	var names []string
	more := 0
	err := fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
		case len(names) < limit:
			names = append(names, name)
		default:
			more++
		}
		return nil
	})
	switch {
	case err != nil:
		return fmt.Sprintf("what cannot be listed (%v)", err)
	case len(names) == 0:
		return "no file at all"
	case more > 0:
		return fmt.Sprintf("%s and %d more", strings.Join(names, ", "), more)
	}
	return strings.Join(names, ", ")
}

// warnCapabilities tells about programs that will lose their file capabilities.
func warnCapabilities(entries []tree.Entry, warn func(string)) {
	for _, e := range entries {
		if _, ok := e.Xattrs["security.capability"]; ok {
			warn(fmt.Sprintf("%s loses its file capabilities: an initramfs cannot hold them", e.Path))
		}
	}
}
