package segment

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/slipway-build/slipway/exporter/internal/atomicfile"
	"github.com/slipway-build/slipway/exporter/tree"
)

// Image is the root filesystem of an image, unpacked or not.
type Image struct {
	Dir    string   // where it is unpacked
	Layers []string // or the files of its layers, the bottom one first
}

// read gives the tree of the image. Contents can be opened until close is
// called. What layers hold is spooled in a directory.
func (i Image) read(spool string) (entries []tree.Entry, close func(), err error) {
	if len(i.Layers) == 0 {
		entries, err = tree.ReadDir(i.Dir)
		return entries, func() {}, err
	}
	layers, close, err := tree.OpenLayers(i.Layers, spool)
	if err != nil {
		return nil, nil, err
	}
	if entries, err = tree.ReadLayers(layers); err != nil {
		close()
		return nil, nil, err
	}
	return entries, close, nil
}

// Archive is the form of a segment.
type Archive string

// The forms of segments.
const (
	CPIO Archive = "cpio" // for an initramfs
	Tar  Archive = "tar"  // for Tree
)

// Packer makes segments.
type Packer struct {
	Out         string // directory for the files that are made
	Archive     Archive
	Compression Compression // of CPIO
}

// Pack makes the segment of an image, to stand at prefix ("" for the root) in
// the machine: FileName and, for RulesInit, APKName if the image has such a
// database.
func (p Packer) Pack(image Image, prefix string, rules Rules) error {
	if err := checkPrefix(prefix); err != nil {
		return err
	}
	entries, close, err := image.read(p.Out)
	if err != nil {
		return err
	}
	defer close()
	if rules == RulesInit {
		if database, ok := APKDatabase(entries); ok {
			if err := copyTo(filepath.Join(p.Out, APKName), database); err != nil {
				return err
			}
		}
	}
	if entries, err = Apply(rules, entries); err != nil {
		return err
	}
	return p.write(Under(prefix, entries))
}

func checkPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	if err := tree.CheckPath(prefix); err != nil {
		return fmt.Errorf("prefix: %w", err)
	}
	return nil
}

// Names of the files that Kernel writes beside FileName.
const (
	KernelName = "kernel"
	UcodeName  = "ucode.cpio"
)

// Kernel takes apart a kernel image. It makes the kernel itself (binary), as
// KernelName, the microcode archive (ucode, "" for none; it may be missing), as
// UcodeName, both with the permissions that they have in the image, and the
// segment of the tar archive with the modules (archive, "" for none), whose
// entries keep their names and attributes.
func (p Packer) Kernel(image Image, binary, archive, ucode string) error {
	entries, close, err := image.read(p.Out)
	if err != nil {
		return err
	}
	defer close()
	find := func(name string) (e tree.Entry, found bool, err error) {
		e, err = tree.Find(entries, name)
		if errors.Is(err, fs.ErrNotExist) {
			return e, false, nil
		}
		if err != nil {
			err = fmt.Errorf("kernel image: %w", err)
		}
		return e, e.Type == tree.File, err
	}
	missing := func(name, advice string) error {
		return fmt.Errorf("kernel image has no file %q; it holds %s; %s", name, listFiles(entries), advice)
	}
	e, found, err := find(binary)
	if err != nil {
		return err
	}
	if !found {
		return missing(binary, "set kernel.binary to the kernel's path")
	}
	if err := copyTo(filepath.Join(p.Out, KernelName), e); err != nil {
		return err
	}
	if ucode != "" {
		e, found, err := find(ucode)
		if err == nil && found {
			err = copyTo(filepath.Join(p.Out, UcodeName), e)
		}
		if err != nil {
			return err
		}
	}
	if archive == "" {
		return nil
	}
	if e, found, err = find(archive); err != nil {
		return err
	}
	if !found {
		return missing(archive, "set kernel.tar to the path of the archive with the modules, or to none")
	}
	if e.Size == 0 {
		return fmt.Errorf("kernel image: %s is empty", archive)
	}
	content, err := e.Open()
	if err != nil {
		return err
	}
	defer content.Close()
	modules, err := tree.ReadTar(content, e.Size)
	if err != nil {
		return fmt.Errorf("kernel image: %s: %w", archive, err)
	}
	// The root of an archive says nothing about that of a machine.
	modules = slices.DeleteFunc(modules, func(e tree.Entry) bool { return e.Path == "." })
	return p.write(tree.AddParents(modules))
}

// Entries makes the segment of a spec file (see ReadSpec), with sources below
// the directory source; "" if there are none.
func (p Packer) Entries(spec, source string) error {
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
	return p.write(entries)
}

// PackEntries returns the files of the segment of a spec whose entries need no
// sources, by name: what Packer.Entries writes. Segments in the form Tar are not
// compressed.
func PackEntries(spec []byte, archive Archive, compression string) (map[string][]byte, error) {
	p := Packer{Archive: archive}
	if archive == CPIO {
		var err error
		if p.Compression, err = ParseCompression(compression); err != nil {
			return nil, err
		}
	}
	entries, err := ReadSpec(bytes.NewReader(spec), nil)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for name, write := range p.files(entries) {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			return nil, err
		}
		files[name] = b.Bytes()
	}
	return files, nil
}

// write makes the segment.
func (p Packer) write(entries []tree.Entry) error {
	for name, write := range p.files(entries) {
		err := atomicfile.Write(filepath.Join(p.Out, name), func(f *os.File) error { return write(f) })
		if err != nil {
			return err
		}
	}
	return nil
}

// files gives the files of a segment and what writes them.
func (p Packer) files(entries []tree.Entry) map[string]func(io.Writer) error {
	if p.Archive == Tar {
		return map[string]func(io.Writer) error{
			FileName: func(w io.Writer) error { return tree.WriteTar(w, entries, time.Unix(0, 0)) },
		}
	}
	return map[string]func(io.Writer) error{
		FileName:  func(w io.Writer) error { return Write(w, entries, p.Compression) },
		NamesName: func(w io.Writer) error { return writeNames(w, entries) },
	}
}

// copyTo makes a file with the content and the permissions of e.
func copyTo(name string, e tree.Entry) error {
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

// listFiles names the files of an image for an error message: all of them
// unless they are many.
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
		return "no file at all"
	case more > 0:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:limit], ", "), more)
	}
	return strings.Join(names, ", ")
}
