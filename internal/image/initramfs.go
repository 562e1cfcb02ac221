package image

import (
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/slipway-build/slipway/exporter/cpio"
	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/contract"
)

// Limits for an initramfs from a stranger.
const (
	maxInitramfs = 8 << 30 // bytes, unpacked too
	maxMembers   = 400_000
	maxXattrList = 16 << 20 // bytes
	maxTarget    = 4096     // bytes of the target of a symbolic link
)

// archive is a file with a part of an initramfs.
type archive struct {
	name string
	r    io.ReaderAt
	size int64
}

// unpacker unpacks an initramfs as Linux does: later members replace earlier ones.
type unpacker struct {
	image   *Image
	spool   *spool
	files   map[string]tree.Entry
	links   map[link]uint64 // inodes of hard links
	parts   []Part
	start   int64 // offset of the current archive in all archives
	members int
}

// link identifies a file with several names in a part.
type link struct {
	part  int
	inode uint32
	mode  uint32
}

// readInitramfs unpacks archives, which follow each other in memory.
func (i *Image) readInitramfs(archives []archive) error {
	if i.archives == nil {
		i.archives = archives
	}
	if i.bootOnly {
		return nil
	}
	s, err := i.temporary()
	if err != nil {
		return err
	}
	u := &unpacker{image: i, spool: s, files: map[string]tree.Entry{}, links: map[link]uint64{}}
	for _, a := range archives {
		if err := u.unpack(a); err != nil {
			return fmt.Errorf("%s: %w", a.name, err)
		}
		u.start += a.size
	}
	for n := range u.parts {
		end := u.start
		if n+1 < len(u.parts) {
			end = u.parts[n+1].Offset
		}
		u.parts[n].Compressed = end - u.parts[n].Offset
	}
	i.Initramfs, i.RootKind = u.parts, "initramfs"
	if err := u.applyXattrs(); err != nil {
		return err
	}
	for _, e := range u.files {
		i.Root = append(i.Root, e)
	}
	tree.Sort(i.Root)
	return tree.Check(i.Root)
}

func (u *unpacker) unpack(a archive) error {
	r := cpio.NewInitramfsReader(io.NewSectionReader(a.r, 0, a.size), maxInitramfs)
	defer r.Close()
	last := int64(-1)
	for {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if r.Part() != last {
			last = r.Part()
			u.parts = append(u.parts, Part{Offset: u.start + last, components: map[string]int64{}})
		}
		if u.members++; u.members > maxMembers {
			return fmt.Errorf("initramfs: more than %d members", maxMembers)
		}
		if err := u.member(h, r); err != nil {
			return fmt.Errorf("initramfs: %q: %w", h.Name[:min(len(h.Name), 64)], err)
		}
	}
}

var treeTypes = map[uint32]tree.Type{
	cpio.TypeFile: tree.File, cpio.TypeDir: tree.Dir, cpio.TypeSymlink: tree.Symlink,
	cpio.TypeChar: tree.Char, cpio.TypeBlock: tree.Block, cpio.TypeFIFO: tree.FIFO,
}

func (u *unpacker) member(h *cpio.Header, r io.Reader) error {
	e := tree.Entry{
		Path: path.Clean(strings.TrimLeft(h.Name, "/")), Type: treeTypes[h.Mode&cpio.TypeMask], Mode: h.Mode & tree.ModeMask, UID: h.UID, GID: h.GID,
	}
	if e.Type == 0 {
		return nil // a socket, which Linux does not create
	}
	if e.Path != "." {
		if err := tree.CheckPath(e.Path); err != nil {
			return err
		}
	}
	part := &u.parts[len(u.parts)-1]
	switch e.Type {
	case tree.Symlink:
		if h.Size > maxTarget {
			return fmt.Errorf("the target of the symbolic link has %d bytes", h.Size)
		}
		target, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		e.Link, e.Mode = strings.TrimRight(string(target), "\x00"), 0o777
	case tree.Char, tree.Block:
		e.Major, e.Minor = h.Major, h.Minor
	case tree.File:
		at, err := u.spool.add(r, h.Size)
		if err != nil {
			return err
		}
		e.Size = h.Size
		u.setContent(&e, at)
		if h.Links > 1 {
			u.setLink(&e, link{len(u.parts), h.Inode, h.Mode}, at)
		}
		part.Unpacked += h.Size
	}
	part.Files++
	part.components[Component(e.Path)] += h.Size
	u.files[e.Path] = e
	return nil
}

func (u *unpacker) setContent(e *tree.Entry, at int64) {
	if e.Size == 0 {
		e.Open = nil
		return
	}
	file, size := u.spool.file, e.Size
	e.Open = func() (tree.Content, error) { return tree.NewContent(io.NewSectionReader(file, at, size), size), nil }
}

// setLink joins the names of a file. Only one of them has the content, as a rule
// the last one.
func (u *unpacker) setLink(e *tree.Entry, l link, at int64) {
	first := u.links[l] == 0
	if first {
		u.links[l] = uint64(len(u.links) + 1)
	}
	e.Inode = u.links[l]
	if first {
		return
	}
	for name, other := range u.files {
		if other.Inode != e.Inode {
			continue
		}
		if e.Size == 0 {
			e.Size, e.Open = other.Size, other.Open
		} else {
			other.Size = e.Size
			u.setContent(&other, at)
			u.files[name] = other
		}
	}
}

// applyXattrs sets the extended attributes that the init of a machine sets.
func (u *unpacker) applyXattrs() error {
	list, ok := u.files[contract.XattrsFile]
	if !ok || list.Type != tree.File || list.Size == 0 {
		return nil
	}
	if list.Size > maxXattrList {
		return fmt.Errorf("%s has %d bytes", contract.XattrsFile, list.Size)
	}
	data, err := io.ReadAll(io.NewSectionReader(list.ReaderAt(), 0, list.Size))
	if err != nil {
		return err
	}
	xattrs, err := contract.UnmarshalXattrs(data)
	if err != nil {
		u.image.warn("%v", err)
		return nil
	}
	for name, attributes := range xattrs {
		e, ok := u.files[name]
		if !ok {
			continue
		}
		e.Xattrs = map[string]string{}
		for key, value := range attributes {
			e.Xattrs[key] = string(value)
		}
		u.files[name] = e
	}
	delete(u.files, contract.XattrsFile)
	delete(u.files, contract.XattrsDir)
	return nil
}

// MinMemory returns an estimate of the least memory in bytes that the machine
// needs to boot, or 0 if the image has no kernel. TestMemoryBudget compares it
// with machines.
//
// Linux unpacks an initramfs into a file system in memory, which can have half of
// the memory that the kernel and the archives leave. It frees the archives after
// that, so that the programs which start then have at least as much again. UEFI
// firmware keeps the memory of its boot services until then; the estimate is for
// OVMF.
func (i *Image) MinMemory() int64 {
	if i.Kernel == nil {
		return 0
	}
	const (
		page     = 4096
		programs = 23 << 20 // of a machine without containerd
		firmware = 42 << 20 // boot services of OVMF
		perPage  = 64       // the kernel describes 64 pages in one
	)
	need := max(i.Kernel.memory, i.Kernel.Size)
	var root int64
	if len(i.Initramfs) > 0 {
		for _, e := range i.Root {
			root += (e.Size + page - 1) / page * page
		}
	}
	for _, p := range i.Initramfs {
		need += p.Compressed
	}
	if slices.ContainsFunc(i.Loaders, func(l Loader) bool { return l.Firmware == "UEFI" }) {
		need += firmware
	}
	need += root + max(root, programs)
	return need + need/perPage
}

// Component returns the name of the component that a path in a root file system
// belongs to: "services/sshd", "onboot/000-dhcpcd", "volumes/data", "kernel
// modules", "microcode", or "base" for what the machine itself consists of.
func Component(name string) string {
	for _, section := range []string{contract.Onboot, contract.Onshutdown, contract.Services} {
		if rest, ok := strings.CutPrefix(name, contract.Bundles(section)+"/"); ok {
			container, _, _ := strings.Cut(rest, "/")
			return section + "/" + container
		}
	}
	if rest, ok := strings.CutPrefix(name, contract.Volumes+"/"); ok {
		volume, _, _ := strings.Cut(rest, "/")
		return "volumes/" + volume
	}
	switch {
	case strings.HasPrefix(name, "lib/modules/"), strings.HasPrefix(name, "usr/lib/modules/"):
		return "kernel modules"
	case strings.HasPrefix(name, "kernel/x86/microcode/"):
		return "microcode"
	}
	return "base"
}

// A Size is what a component takes.
type Size struct {
	Name string `json:"name"`
	// Compressed is in bytes. If Shared is set, the component is in an archive
	// with others, and this is its share by size.
	Compressed int64 `json:"compressed,omitempty"`
	Shared     bool  `json:"shared,omitempty"`
	Unpacked   int64 `json:"unpacked"` // bytes of files
	Files      int   `json:"files"`
}

// Components returns the components of the root file system, largest first.
func (i *Image) Components() []Size {
	sizes := map[string]*Size{}
	at := func(name string) *Size {
		if sizes[name] == nil {
			sizes[name] = &Size{Name: name}
		}
		return sizes[name]
	}
	inodes := map[uint64]bool{}
	for _, e := range i.Root {
		s := at(Component(e.Path))
		s.Files++
		if e.Inode == 0 || !inodes[e.Inode] {
			s.Unpacked += e.Size
		}
		inodes[e.Inode] = true
	}
	for _, p := range i.Initramfs {
		largest, total := "", int64(0)
		for name, size := range p.components {
			total += size
			if largest == "" || size > p.components[largest] || size == p.components[largest] && name < largest {
				largest = name
			}
		}
		left := p.Compressed
		for name, size := range p.components {
			if name == largest || total == 0 {
				continue
			}
			share := int64(float64(p.Compressed) * float64(size) / float64(total))
			at(name).Compressed += share
			at(name).Shared = at(name).Shared || share > 0
			at(largest).Shared = at(largest).Shared || share > 0
			left -= share
		}
		if largest != "" {
			at(largest).Compressed += left
		}
	}
	var list []Size
	for _, s := range sizes {
		list = append(list, *s)
	}
	slices.SortFunc(list, func(a, b Size) int {
		if a.Unpacked != b.Unpacked {
			return int(min(1, max(-1, b.Unpacked-a.Unpacked)))
		}
		return strings.Compare(a.Name, b.Name)
	})
	return list
}
