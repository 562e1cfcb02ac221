package segment

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/slipway-build/slipway/exporter/internal/atomicfile"
	"github.com/slipway-build/slipway/exporter/tree"
)

// Kernel extracts the files of a kernel image, of which it takes the paths: the
// kernel as KernelName, and the microcode, if the image has it, as UcodeName,
// both with their permissions. The entries of the tar archive with the modules
// become the segment, with their names and attributes. Ucode and archive can be
// "".
func (p Packer) Kernel(image Rootfs, binary, archive, ucode string) error {
	entries, closeTree, err := image.read(p.Out)
	if err != nil {
		return err
	}
	defer closeTree()

	kernel, err := requireFile(entries, binary, "set kernel.binary to the kernel's path")
	if err != nil {
		return err
	}
	if err := extract(kernel, filepath.Join(p.Out, KernelName)); err != nil {
		return err
	}
	if ucode != "" {
		microcode, found, err := findFile(entries, ucode)
		if err == nil && found {
			err = extract(microcode, filepath.Join(p.Out, UcodeName))
		}
		if err != nil {
			return err
		}
	}
	if archive == "" {
		return nil
	}
	modules, err := requireFile(entries, archive, "set kernel.tar to the path of the archive with the modules, or to none")
	if err != nil {
		return err
	}
	return p.modules(modules, archive)
}

// modules writes the segment of the tar archive with the modules of a kernel.
func (p Packer) modules(archive tree.Entry, name string) error {
	if archive.Size == 0 {
		return fmt.Errorf("kernel image: %s is empty", name)
	}
	content, err := archive.Open()
	if err != nil {
		return err
	}
	defer content.Close()
	modules, err := tree.ReadTar(content, archive.Size)
	if err != nil {
		return fmt.Errorf("kernel image: %s: %w", name, err)
	}
	// The attributes of the root of the archive are not meant for the machine.
	modules = slices.DeleteFunc(modules, func(e tree.Entry) bool { return e.Path == "." })
	return p.write(tree.AddParents(modules))
}

// findFile returns the regular file of a kernel image with a name, and reports
// whether it exists.
func findFile(entries []tree.Entry, name string) (e tree.Entry, found bool, err error) {
	e, err = tree.Find(entries, name)
	if errors.Is(err, fs.ErrNotExist) {
		return e, false, nil
	}
	if err != nil {
		return e, false, fmt.Errorf("kernel image: %w", err)
	}
	return e, e.Type == tree.File, nil
}

// requireFile returns the regular file of a kernel image with a name. The error
// for a missing one ends with the advice.
func requireFile(entries []tree.Entry, name, advice string) (tree.Entry, error) {
	e, found, err := findFile(entries, name)
	if err == nil && !found {
		err = fmt.Errorf("kernel image has no file %q; it contains %s; %s", name, listFiles(entries), advice)
	}
	return e, err
}

// extract creates a file with the content and the permissions of e.
func extract(e tree.Entry, name string) error {
	err := atomicfile.Write(name, func(f *os.File) error {
		if e.Size == 0 {
			return nil
		}
		content, err := e.Open()
		if err != nil {
			return err
		}
		defer content.Close()
		n, err := io.Copy(f, content)
		if err == nil && n != e.Size {
			return fmt.Errorf("read %d of %d bytes", n, e.Size)
		}
		return err
	})
	if err != nil {
		return err
	}
	return os.Chmod(name, fs.FileMode(e.Mode)&fs.ModePerm)
}

// listFiles returns the names of the files of an image for an error message. It
// shortens a long list.
func listFiles(entries []tree.Entry) string {
	const limit = 10
	var names []string
	for _, e := range entries {
		if e.Type != tree.Dir {
			names = append(names, e.Path)
		}
	}
	switch more := len(names) - limit; {
	case len(names) == 0:
		return "no files"
	case more > 0:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:limit], ", "), more)
	}
	return strings.Join(names, ", ")
}
