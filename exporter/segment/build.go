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
			if err := copyTo(filepath.Join(out, APKName), database.Open, database.Size); err != nil {
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
	take := func(name, field, what, as string) error {
		info, err := root.Stat(name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
			return fmt.Errorf("kernel image has no file %q; it holds %s; set %s to the %s's path: %w",
				name, listFiles(root), field, what, fs.ErrNotExist)
		}
		if err != nil {
			return fmt.Errorf("kernel image: %w", err)
		}
		if as == "" {
			return nil
		}
		return copyTo(filepath.Join(out, as), func() (io.ReadCloser, error) { return root.Open(name) }, info.Size())
	}
	if err := take(binary, "kernel.binary", "kernel", KernelName); err != nil {
		return err
	}
	if ucode != "" {
		if err := take(ucode, "kernel.ucode", "microcode archive", UcodeName); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if archive == "" {
		return nil
	}
	if err := take(archive, "kernel.tar", "modules archive", ""); err != nil {
		return err
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

func copyTo(name string, open func() (io.ReadCloser, error), size int64) error {
	return output.File(name, func(f *os.File) error {
		if size == 0 {
			return nil
		}
		content, err := open()
		if err != nil {
			return err
		}
		defer content.Close()
		n, err := io.Copy(f, content)
		if err == nil && n != size {
			return fmt.Errorf("read %d of %d bytes", n, size)
		}
		return err
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
