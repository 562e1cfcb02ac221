// Command closure copies programs from unpacked Debian packages, with
// everything that they need to run: the targets of symbolic links, and for a
// dynamic ELF program its loader and libraries. It reads these from the ELF
// headers, so the packages may be of another architecture. It makes real
// directories instead of the links of a merged /usr, so that such images can be
// unpacked over each other. Plugins that a program loads by name must be given
// as FILE. The descriptions of packages that hack/debian/get wrote are copied
// with their files.
//
// Usage: closure ROOT DEST FILE...
package main

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path"
	"path/filepath"
	"strings"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("closure: ")
	if len(os.Args) < 4 {
		log.Fatal("usage: closure ROOT DEST FILE...")
	}
	c := closure{root: os.Args[1], dest: os.Args[2]}
	if err := c.readNotes(); err != nil {
		log.Fatal(err)
	}
	for _, file := range os.Args[3:] {
		if err := c.add(file); err != nil {
			log.Fatal(err)
		}
	}
}

type closure struct {
	root, dest string
	packages   map[string]string // file to its package, see unmerged
}

// notes is where images without dpkg describe their packages.
const notes = "/var/lib/dpkg/status.d"

// readNotes reads the lists of the files in each package, deb-md5sums(5).
func (c *closure) readNotes() error {
	c.packages = map[string]string{}
	lists, err := filepath.Glob(filepath.Join(c.root, notes, "*.md5sums"))
	if err != nil {
		return err
	}
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			if _, name, ok := strings.Cut(strings.TrimSpace(line), "  "); ok {
				c.packages[unmerged("/"+name)] = strings.TrimSuffix(filepath.Base(list), ".md5sums")
			}
		}
	}
	return nil
}

// unmerged returns the name of a file without /usr, because /bin/sh and
// /usr/bin/sh are one file if /usr is merged.
func unmerged(name string) string {
	return strings.TrimPrefix(name, "/usr")
}

// add copies the file at an absolute path below root.
func (c *closure) add(name string) error {
	if !path.IsAbs(name) {
		return fmt.Errorf("%s: not an absolute path", name)
	}
	source, dest := filepath.Join(c.root, name), filepath.Join(c.dest, name)
	if _, err := os.Lstat(dest); err == nil {
		return nil
	}
	info, err := os.Lstat(source)
	if err != nil {
		return fmt.Errorf("%s: no such file (is its Debian package unpacked in %s?)", name, c.root)
	}
	if err := os.MkdirAll(filepath.Dir(dest), 0o755); err != nil {
		return err
	}
	switch info.Mode().Type() {
	case fs.ModeSymlink:
		target, err := os.Readlink(source)
		if err != nil {
			return err
		}
		if err := os.Symlink(target, dest); err != nil {
			return err
		}
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(name), target)
		}
		return c.add(target)
	case 0:
		contents, err := os.ReadFile(source)
		if err != nil {
			return err
		}
		if err := os.WriteFile(dest, contents, info.Mode().Perm()); err != nil {
			return err
		}
		if p, ok := c.packages[unmerged(name)]; ok {
			if err := c.add(path.Join(notes, p)); err != nil {
				return err
			}
		}
		return c.addLibraries(name)
	}
	return fmt.Errorf("%s: not a regular file or a link to one", name)
}

// addLibraries adds the dependencies of a dynamic ELF file. Other files have
// none.
func (c *closure) addLibraries(name string) error {
	file, err := elf.Open(filepath.Join(c.root, name))
	if format := (*elf.FormatError)(nil); errors.As(err, &format) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	for _, program := range file.Progs {
		if program.Type != elf.PT_INTERP {
			continue
		}
		loader := make([]byte, program.Filesz-1) // without the final zero byte
		if _, err := program.ReadAt(loader, 0); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := c.add(string(loader)); err != nil {
			return err
		}
	}
	libraries, err := file.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, library := range libraries {
		found, err := c.find(file.Machine, library)
		if err != nil {
			return fmt.Errorf("%s needs %w", name, err)
		}
		if err := c.add(found); err != nil {
			return err
		}
	}
	return nil
}

// find returns the path of a library. The directories are those of Debian
// (https://wiki.debian.org/Multiarch/Tuples).
func (c *closure) find(machine elf.Machine, library string) (string, error) {
	tuple := map[elf.Machine]string{elf.EM_X86_64: "x86_64-linux-gnu", elf.EM_AARCH64: "aarch64-linux-gnu"}[machine]
	for _, dir := range []string{"/lib/" + tuple, "/usr/lib/" + tuple, "/lib", "/usr/lib"} {
		if _, err := os.Lstat(filepath.Join(c.root, dir, library)); err == nil {
			return path.Join(dir, library), nil
		}
	}
	return "", fmt.Errorf("%s: no such library (is its Debian package unpacked in %s?)", library, c.root)
}
