package measure

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"unicode/utf16"

	"github.com/slipway-build/slipway/exporter/efivars"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/exporter/uki"
)

// Versions of systemd-stub that changed what is measured.
const (
	stubHidesKernel   = 252 // with Secure Boot: it starts the kernel without the firmware's verification
	stubMeasuresUname = 254 // .uname and .sbat
	stubMeasuresUcode = 256
	stubPassesRelease = 257 // .osrel and .profile as files of the initramfs
	stubLoadsKernel   = 258 // without the firmware
)

// A section is a section of a unified kernel image that systemd-stub measures.
type section struct {
	name  string
	since int // version of systemd
}

// measuredSections are in the order in which systemd-stub measures them (systemd,
// src/fundamental/uki.h).
var measuredSections = []section{
	{".linux", 0}, {".osrel", 0}, {".cmdline", 0}, {".initrd", 0}, {".ucode", stubMeasuresUcode}, {".splash", 0},
	{".dtb", 0}, {".uname", stubMeasuresUname}, {".sbat", stubMeasuresUname}, {".pcrpkey", 0},
}

// stubInfo is the version in the section .sdmagic of systemd-stub.
var stubInfo = regexp.MustCompile(`LoaderInfo: systemd-stub (\d+)`)

// ErrUnknown is the error for a program whose measurements are not known.
var ErrUnknown = errors.New("the measurements of this program are not known")

// UKI predicts the measurements of a unified kernel image of size bytes that
// firmware starts. Keys are those of firmware with Secure Boot, and nil for firmware
// without.
func UKI(r io.ReaderAt, size int64, keys *Keys) (*Measurements, error) {
	program, err := uki.Read(r, size)
	if err != nil {
		return nil, err
	}
	version, err := stubVersion(program)
	if err != nil {
		return nil, err
	}
	l := &log{}
	l.secureBoot(keys)
	l.bootOption()
	if keys != nil {
		l.addVariable(typeAuthority, "db", efivars.ImageSecurity, keys.Signer)
	}
	if err := l.addProgram("unified kernel image", r, size); err != nil {
		return nil, err
	}
	for _, s := range measuredSections {
		content, ok := program.Section(s.name)
		if !ok || content.Size == 0 || version < s.since {
			continue
		}
		l.addBytes(11, typeIPL, s.name+": name", append([]byte(s.name), 0))
		if err := l.addContent(11, typeIPL, s.name+": content", content); err != nil {
			return nil, err
		}
	}
	linux, _ := program.Section(".linux")
	if version < stubHidesKernel || version < stubLoadsKernel && keys == nil {
		if err := l.addProgram("kernel", linux, linux.Size); err != nil {
			return nil, err
		}
	}
	cmdline, _ := program.Section(".cmdline")
	text, err := io.ReadAll(io.LimitReader(cmdline.Reader(), maxCmdline))
	if err != nil {
		return nil, err
	}
	initrd, err := stubInitrd(program, version)
	if err != nil {
		return nil, err
	}
	if err := l.kernel(string(text), initrd); err != nil {
		return nil, err
	}
	return l.measurements(keys != nil)
}

const maxCmdline = 64 << 10

func stubVersion(program uki.Program) (int, error) {
	if _, ok := program.Section(".linux"); !ok {
		return 0, fmt.Errorf("%w: it is not a unified kernel image", ErrUnknown)
	}
	magic, ok := program.Section(".sdmagic")
	if !ok {
		return 0, fmt.Errorf("%w: its stub is not systemd-stub", ErrUnknown)
	}
	text, err := io.ReadAll(io.LimitReader(magic.Reader(), 1<<10))
	if err != nil {
		return 0, err
	}
	match := stubInfo.FindSubmatch(text)
	if match == nil {
		return 0, fmt.Errorf("%w: its stub has no version", ErrUnknown)
	}
	return strconv.Atoi(string(match[1]))
}

// extras are the sections that systemd-stub also passes as files of the initramfs, in
// its order (systemd, src/boot/stub.c, generate_embedded_initrds).
var extras = []struct {
	section
	file string
}{
	{section{".pcrsig", 0}, "tpm2-pcr-signature.json"},
	{section{".pcrpkey", 0}, "tpm2-pcr-public-key.pem"},
	{section{".osrel", stubPassesRelease}, "os-release"},
	{section{".profile", stubPassesRelease}, "profile"},
}

// stubInitrd returns the initramfs that systemd-stub passes to the kernel: its
// parts, aligned to 4 bytes. A single part stays as it is.
func stubInitrd(program uki.Program, version int) (sparse.Content, error) {
	var parts []sparse.Content
	for _, s := range []section{{".ucode", stubMeasuresUcode}, {".initrd", 0}} {
		if content, ok := program.Section(s.name); ok && content.Size > 0 && version >= s.since {
			parts = append(parts, content)
		}
	}
	for _, e := range extras {
		content, ok := program.Section(e.name)
		if !ok || content.Size == 0 || version < e.since {
			continue
		}
		data, err := io.ReadAll(io.LimitReader(content.Reader(), maxExtra))
		if err != nil {
			return sparse.Content{}, err
		}
		parts = append(parts, sparse.Bytes(extraArchive(e.file, data)))
	}
	if len(parts) == 1 {
		return parts[0], nil
	}
	for i := range parts {
		parts[i] = parts[i].Pad(cpioAlign)
	}
	return sparse.Concat(parts...), nil
}

const (
	maxExtra  = 1 << 20
	cpioAlign = 4
)

// extraArchive returns the archive that systemd-stub makes of a section (systemd,
// src/boot/cpio.c; Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
func extraArchive(name string, content []byte) []byte {
	var b []byte
	pad := func() {
		for len(b)%cpioAlign != 0 {
			b = append(b, 0)
		}
	}
	const dir = ".extra"
	for i, e := range []struct {
		mode    int
		name    string
		content []byte
	}{{0o40555, dir, nil}, {0o100444, dir + "/" + name, content}} {
		b = fmt.Appendf(b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
			i+1, e.mode, 0, 0, 1, 0, len(e.content), 0, 0, 0, 0, len(e.name)+1, 0, e.name)
		pad()
		b = append(b, e.content...)
		pad()
	}
	const trailer = "TRAILER!!!"
	b = fmt.Appendf(b, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, len(trailer)+1, 0, trailer)
	pad()
	return b
}

// kernel adds what the EFI stub of Linux measures: the command line and the
// initramfs that the loader passes.
func (l *log) kernel(cmdline string, initrd sparse.Content) error {
	l.addBytes(9, typeTag, "LOADED_IMAGE::LoadOptions", loadOptions(cmdline))
	if initrd.Size == 0 {
		return nil
	}
	return l.addContent(9, typeTag, "Linux initrd", initrd)
}

// loadOptions returns a command line as UEFI passes it to a program: in UTF-16, with
// NUL.
func loadOptions(cmdline string) []byte {
	var options []byte
	for _, u := range utf16.Encode([]rune(cmdline + "\x00")) {
		options = binary.LittleEndian.AppendUint16(options, u)
	}
	return options
}

func (l *log) addContent(pcr int, kind, description string, c sparse.Content) error {
	buf := make([]byte, 1<<20)
	return l.add(pcr, kind, description, func(w io.Writer) error {
		_, err := io.CopyBuffer(w, c.Reader(), buf)
		return err
	})
}
