package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/slipway-build/slipway/exporter/fat"
	"github.com/slipway-build/slipway/exporter/gpt"
	"github.com/slipway-build/slipway/exporter/iso9660"
	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/exporter/uki"
	"github.com/slipway-build/slipway/internal/contract/reserve"
)

// An Area is a part of an image that can be filled after the build.
type Area struct {
	Kind   AreaKind `json:"kind"`
	Offset int64    `json:"offset"` // bytes
	Size   int64    `json:"size"`   // bytes
}

// An AreaKind is what an area is for.
type AreaKind string

// The kinds of areas: for additions to the command line, by what reads it, and
// for user data.
const (
	AreaGRUB        AreaKind = "cmdline-grub"
	AreaSystemdBoot AreaKind = "cmdline-systemd-boot"
	AreaUKI         AreaKind = "cmdline-uki"
	AreaUserData    AreaKind = "user-data"
)

// Reserved are the areas that an image reserves.
type Reserved struct {
	Areas []Area

	cmdlines map[Area]string // before each area for the command line
	sums     []sum           // of UKIs with areas
}

// sum is the checksum of a UKI.
type sum struct {
	program io.ReaderAt
	size    int64
	at      int64 // in the image
}

// The errors of images that cannot be filled.
var (
	ErrNothingReserved = errors.New("the image reserves no room: build it with --build-arg RESERVE=4K")
	ErrSigned          = errors.New("the image is signed, and would no longer match its signature: build it without a signature")
)

// An ImageFile is an image that is changed in place.
type ImageFile interface {
	io.ReaderAt
	io.WriterAt
}

// FindReserved finds the areas of a raw disk, a CD or a UKI of size bytes. The
// error is ErrNothingReserved if there are none, and ErrSigned if a signature
// covers one of them.
func FindReserved(r io.ReaderAt, size int64) (*Reserved, error) {
	f := &finder{trace: &trace{r: r}, found: &Reserved{cmdlines: map[Area]string{}}}
	if err := f.find(size); err != nil {
		return nil, err
	}
	if len(f.found.Areas) == 0 {
		return nil, ErrNothingReserved
	}
	if !slices.ContainsFunc(f.found.Areas, func(a Area) bool { return a.Kind == AreaUserData }) {
		return nil, errors.New("the reserved area for user data is damaged")
	}
	slices.SortFunc(f.found.Areas, func(a, b Area) int { return int(min(max(a.Offset-b.Offset, -1), 1)) })
	f.found.Areas = slices.Compact(f.found.Areas)
	return f.found, nil
}

// finder finds areas through the readers of all formats. It finds where they are
// in the image by tracing what these read.
type finder struct {
	trace *trace
	found *Reserved
}

// trace remembers where the last byte was read.
type trace struct {
	r  io.ReaderAt
	at int64
}

func (t *trace) ReadAt(p []byte, off int64) (int, error) {
	t.at = off
	return t.r.ReadAt(p, off)
}

// offset returns the offset in the image of n bytes of a content, which must be
// together.
func (f *finder) offset(content io.ReaderAt, at, n int64) (int64, error) {
	place := func(at int64) (int64, error) {
		f.trace.at = -1
		if _, err := content.ReadAt(make([]byte, 1), at); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		return f.trace.at, nil
	}
	first, err := place(at)
	if err != nil {
		return 0, err
	}
	last, err := place(at + n - 1)
	if err != nil {
		return 0, err
	}
	if first < 0 || last-first != n-1 {
		return 0, errors.New("a reserved area is in several pieces")
	}
	return first, nil
}

func (f *finder) find(size int64) error {
	r := f.trace
	if program, err := uki.Read(r, size); err == nil {
		return f.program(r, size, program)
	}
	if magic := make([]byte, 5); f.read(magic, 16*iso9660.SectorSize+1) && string(magic) == "CD001" {
		return f.cd(size)
	}
	table, err := gpt.Read(r)
	if err != nil {
		return fmt.Errorf("%w: it is no raw disk, CD or unified kernel image", err)
	}
	for _, p := range table.Partitions {
		start, length := int64(p.First)*gpt.SectorSize, int64(p.Last-p.First+1)*gpt.SectorSize
		if int64(p.Last) >= size/gpt.SectorSize {
			continue
		}
		// The partition with the files of GRUB alone is no EFI system partition.
		volume, err := fat.Open(io.NewSectionReader(r, start, length))
		if err != nil {
			continue
		}
		if err := f.volume(volume); err != nil {
			return err
		}
	}
	return nil
}

func (f *finder) read(p []byte, at int64) bool {
	n, _ := f.trace.ReadAt(p, at)
	return n == len(p)
}

// cd finds the areas of a CD: on its ISO 9660 file system and on its EFI system
// partition.
func (f *finder) cd(size int64) error {
	entries, err := iso9660.Read(f.trace, size)
	if err != nil {
		return err
	}
	files := tree.NewFS(entries)
	open := func(name string) (io.ReaderAt, int64, error) {
		e, err := files.Lookup(name)
		if err != nil || e.Type != tree.File {
			return nil, 0, fs.ErrNotExist
		}
		return e.ReaderAt(), e.Size, nil
	}
	if err := f.configs(open, "boot/"); err != nil {
		return err
	}
	if file, n, err := open(reserve.Path); err == nil && CheckReserve(n) == nil && n > 0 {
		if err := f.userData(file, 0, n); err != nil {
			return err
		}
	}
	at, err := iso9660.UEFIImage(f.trace, size)
	if err != nil || at <= 0 || at >= size {
		return err
	}
	volume, err := fat.Open(io.NewSectionReader(f.trace, at, size-at))
	if err != nil {
		return err
	}
	return f.volume(volume)
}

// volume finds the areas of an EFI system partition.
func (f *finder) volume(volume *fat.FS) error {
	open := func(name string) (io.ReaderAt, int64, error) {
		content, err := volume.Content(name)
		if err != nil {
			return nil, 0, err
		}
		return content, content.Size(), nil
	}
	for _, suffix := range suffixes {
		content, n, err := open("EFI/BOOT/BOOT" + strings.ToUpper(suffix) + ".EFI")
		if err != nil {
			continue
		}
		if program, err := uki.Read(content, n); err == nil {
			if err := f.program(content, n, program); err != nil {
				return err
			}
		}
	}
	return f.configs(open, "")
}

// maxConfig limits the configuration of a boot loader, in bytes.
const maxConfig = 64 << 10

// configs finds the areas in the configurations of boot loaders, and in the
// initramfs that they name.
func (f *finder) configs(open func(string) (io.ReaderAt, int64, error), dir string) error {
	for _, c := range []struct {
		name string
		kind AreaKind
	}{{dir + "grub/grub.cfg", AreaGRUB}, {"loader/entries/slipway.conf", AreaSystemdBoot}} {
		file, size, err := open(c.name)
		if err != nil || size > maxConfig {
			continue
		}
		text := make([]byte, size)
		if n, err := file.ReadAt(text, 0); int64(n) < size {
			return err
		}
		before, line, found := strings.Cut(string(text), reserveMark)
		if !found {
			continue
		}
		line, rest, _ := strings.Cut(line, "\n")
		m, ok := parseMarks(line)
		if rest, _, _ = strings.Cut(rest, "\n"); !ok || m.start+m.area != len(rest) {
			return fmt.Errorf("%s: the reserved area is damaged", c.name)
		}
		start := int64(len(before) + len(reserveMark) + len(line) + 1 + m.start)
		if err := f.cmdline(c.kind, file, start, m.area, rest[:m.start]); err != nil {
			return err
		}
		if initrd, n, err := open(dir + initrdPath); err == nil {
			if err := f.archive(initrd, n, m.userData); err != nil {
				return err
			}
		}
	}
	return nil
}

// program finds the areas of a UKI.
func (f *finder) program(r io.ReaderAt, size int64, p uki.Program) error {
	release, ok := p.Section(".osrel")
	if !ok || release.Size > maxConfig {
		return nil
	}
	text, err := io.ReadAll(release.Reader())
	if err != nil {
		return err
	}
	_, line, found := strings.Cut(string(text), ukiReserveMark)
	if !found {
		return nil
	}
	line, _, _ = strings.Cut(line, "\n")
	m, ok := parseMarks(strings.Trim(line, `"`))
	cmdline, _ := p.Section(".cmdline")
	initrd, _ := p.Section(".initrd")
	if !ok || int64(m.start+m.area) != cmdline.Size {
		return errors.New("the reserved area of the unified kernel image is damaged")
	}
	if p.Signed {
		return ErrSigned
	}
	before := make([]byte, m.start)
	if n, err := cmdline.ReadAt(before, 0); n < len(before) {
		return err
	}
	if err := f.cmdline(AreaUKI, cmdline, int64(m.start), m.area, string(before)); err != nil {
		return err
	}
	if err := f.archive(initrd, initrd.Size, m.userData); err != nil {
		return err
	}
	field, err := uki.ChecksumOffset(r, size)
	if err != nil {
		return err
	}
	at, err := f.offset(r, field, 4)
	f.found.sums = append(f.found.sums, sum{r, size, at})
	return err
}

func (f *finder) cmdline(kind AreaKind, file io.ReaderAt, at int64, size int, before string) error {
	offset, err := f.offset(file, at, int64(size))
	if err != nil {
		return err
	}
	area := Area{kind, offset, int64(size)}
	f.found.Areas = append(f.found.Areas, area)
	f.found.cmdlines[area] = before
	return nil
}

// archive finds the area for user data at the end of an initramfs, unless it is
// elsewhere.
func (f *finder) archive(r io.ReaderAt, size, userData int64) error {
	before, file, after := reserveArchive(userData)
	got := make([]byte, len(before)+len(after))
	start := size - int64(len(before)+len(file)+len(after))
	if start < 0 {
		return nil
	}
	for _, part := range []struct {
		to []byte
		at int64
	}{{got[:len(before)], start}, {got[len(before):], size - int64(len(after))}} {
		if n, err := r.ReadAt(part.to, part.at); n < len(part.to) {
			return err
		}
	}
	if !bytes.Equal(got, append(before, after...)) {
		return nil
	}
	return f.userData(r, start+int64(len(before)), userData)
}

func (f *finder) userData(r io.ReaderAt, at, size int64) error {
	file := make([]byte, size)
	if n, err := r.ReadAt(file, at); int64(n) < size {
		return err
	}
	if _, err := reserve.Decode(file); err != nil {
		return fmt.Errorf("/%s: %w", reserve.Path, err)
	}
	offset, err := f.offset(r, at, size)
	f.found.Areas = append(f.found.Areas, Area{AreaUserData, offset, size})
	return err
}

// SetCmdline replaces the additions to the command line in all areas. An empty
// text restores what the build wrote. It fails, without changing the image, if
// the additions do not fit or a boot loader cannot pass them on.
func (r *Reserved) SetCmdline(image ImageFile, additions string) error {
	return r.set(image, func(a Area) ([]byte, error) {
		if a.Kind == AreaUserData {
			return nil, nil
		}
		text, err := r.addition(a, strings.TrimSpace(additions))
		if err != nil {
			return nil, err
		}
		if int64(len(text)) > a.Size {
			return nil, fmt.Errorf("the additions to the command line need %d bytes, but the image reserves %d", len(text), a.Size)
		}
		return []byte(text + strings.Repeat(" ", int(a.Size)-len(text))), nil
	})
}

// addition returns the content of an area for the command line, without the
// spaces at its end.
func (r *Reserved) addition(a Area, text string) (string, error) {
	before := r.cmdlines[a]
	switch a.Kind {
	case AreaGRUB:
		words, err := grubWords(text)
		if err != nil {
			return "", err
		}
		line := strings.TrimSpace(ParseGRUB(before).Cmdline + " " + grubResult(words))
		out := ""
		for _, word := range words {
			out += " '" + word + "'"
		}
		return out, checkCmdline(line, cdPrefix)
	case AreaSystemdBoot:
		before = strings.TrimPrefix(before, `options "`)
		if text != "" {
			text = " " + text
		}
		return text + `"`, checkCmdline(strings.TrimSpace(before+text), systemdBootPrefix)
	}
	if text != "" {
		text = " " + text
	}
	return text, checkCmdline(before+text, "")
}

// SetUserData replaces the user data. Empty data restores what the build wrote.
// It fails, without changing the image, if the data does not fit.
func (r *Reserved) SetUserData(image ImageFile, data []byte) error {
	return r.set(image, func(a Area) ([]byte, error) {
		if a.Kind != AreaUserData {
			return nil, nil
		}
		return reserve.Encode(data, a.Size)
	})
}

// set writes the contents of areas, and then the checksums. Areas without content
// stay as they are.
func (r *Reserved) set(image ImageFile, content func(Area) ([]byte, error)) error {
	contents := make([][]byte, len(r.Areas))
	for i, a := range r.Areas {
		var err error
		if contents[i], err = content(a); err != nil {
			return err
		}
	}
	for i, a := range r.Areas {
		if len(contents[i]) == 0 {
			continue
		}
		if _, err := image.WriteAt(contents[i], a.Offset); err != nil {
			return err
		}
	}
	for _, s := range r.sums {
		field, err := uki.Checksum(s.program, s.size)
		if err != nil {
			return err
		}
		if _, err := image.WriteAt(field[:], s.at); err != nil {
			return err
		}
	}
	return nil
}

// Changed returns the parts of the image that SetCmdline and SetUserData change.
func (r *Reserved) Changed() []Area {
	changed := slices.Clone(r.Areas)
	for _, s := range r.sums {
		changed = append(changed, Area{Kind: "checksum", Offset: s.at, Size: 4})
	}
	return changed
}
