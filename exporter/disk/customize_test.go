package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/exporter/cpio"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/exporter/uki"
	"github.com/slipway-build/slipway/internal/contract/reserve"
)

// memory is an image in memory.
type memory []byte

func (m memory) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(m).ReadAt(p, off) }

func (m memory) WriteAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > int64(len(m)) {
		return 0, io.ErrShortWrite
	}
	return copy(m[off:], p), nil
}

// load reads an image into memory.
func load(t *testing.T, c sparse.Content) memory {
	t.Helper()
	b, err := io.ReadAll(c.Reader())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// reservedImages returns one image of each kind with reserved areas, and the kinds
// of the areas.
func reservedImages(t *testing.T, size int64) map[string]struct {
	image memory
	kinds string
} {
	t.Helper()
	out := map[string]struct {
		image memory
		kinds string
	}{}
	add := func(name, kinds string, c sparse.Content, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out[name] = struct {
			image memory
			kinds string
		}{load(t, c), kinds}
	}
	plain := contents()
	plain.Initrd[0] = plain.Initrd[0].Pad(4)
	for boot, kinds := range map[BootMethod]string{
		Hybrid: "cmdline-grub cmdline-systemd-boot user-data", BIOS: "cmdline-grub user-data", UEFI: "cmdline-systemd-boot user-data", UKI: "cmdline-uki user-data",
	} {
		d, err := New(boot, plain.ReserveInitrd(size), testLoaders(), 0, time.Unix(0, 0))
		add(string(boot), kinds, d.Content, err)
	}
	for name, cd := range cds {
		kinds := "user-data"
		if cd.UEFI {
			kinds = "cmdline-systemd-boot " + kinds
		}
		if cd.BIOS {
			kinds = "cmdline-grub " + kinds
		}
		if cd.BIOS && cd.Disk {
			kinds = "cmdline-grub " + kinds // on the EFI system partition too
		}
		d, err := NewCD(cd, plain.ReserveInitrd(size), nil, testLoaders(), time.Unix(0, 0))
		add("CD "+name, kinds, d.Content, err)
		root, err := ReserveTree(machineRoot(), size)
		if err != nil {
			t.Fatal(err)
		}
		c := plain
		c.Reserve = size
		d, err = NewCD(cd, c, root, testLoaders(), time.Unix(0, 0))
		add("CD with root, "+name, kinds, d.Content, err)
	}
	image, err := NewUKI(plain.ReserveInitrd(size), testLoaders().Stub, Packed)
	add("UKI alone", "cmdline-uki user-data", image, err)
	return out
}

// TestCustomize fills the areas of each kind of image. The boot loaders read the
// additions, nothing else changes, and restoring returns the first bytes.
func TestCustomize(t *testing.T) {
	for name, c := range reservedImages(t, 4096) {
		t.Run(name, func(t *testing.T) {
			image := bytes.Clone(c.image)
			r, err := FindReserved(memory(image), int64(len(image)))
			if err != nil {
				t.Fatal(err)
			}
			var kinds []string
			for _, a := range r.Areas {
				kinds = append(kinds, string(a.Kind))
			}
			slices.Sort(kinds)
			if got := strings.Join(kinds, " "); got != c.kinds {
				t.Fatalf("areas %q, want %q", got, c.kinds)
			}
			for _, fill := range []struct{ cmdline, data string }{{"worker=m-17 note=\"two words\"", "#cloud-config\n"}, {"x", strings.Repeat("y", 3000)}} {
				if err := errors.Join(r.SetCmdline(memory(image), fill.cmdline), r.SetUserData(memory(image), []byte(fill.data))); err != nil {
					t.Fatal(err)
				}
				again, err := FindReserved(memory(image), int64(len(image)))
				if err != nil || !slices.Equal(again.Areas, r.Areas) {
					t.Fatalf("areas %v, %v, want %v", again, err, r.Areas)
				}
				checkFilled(t, image, again, fill.cmdline, fill.data)
			}
			changed := bytes.Clone(image)
			for _, a := range r.Changed() {
				copy(changed[a.Offset:a.Offset+a.Size], c.image[a.Offset:])
			}
			if !bytes.Equal(changed, c.image) {
				t.Error("bytes outside of the areas changed")
			}
			if err := errors.Join(r.SetCmdline(memory(image), ""), r.SetUserData(memory(image), nil)); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(image, c.image) {
				t.Error("the restored image differs")
			}
		})
	}
}

// checkFilled checks what the readers of the areas find.
func checkFilled(t *testing.T, image memory, r *Reserved, cmdline, data string) {
	t.Helper()
	original := contents().Cmdline
	for _, a := range r.Areas {
		before, area := r.cmdlines[a], string(image[a.Offset:a.Offset+a.Size])
		switch a.Kind {
		case AreaGRUB:
			words, err := grubWords(original + " " + cmdline)
			if err != nil {
				t.Fatal(err)
			}
			if got := ParseGRUB(before + area).Cmdline; got != grubResult(words) {
				t.Errorf("GRUB passes on %q, want %q", got, grubResult(words))
			}
		case AreaSystemdBoot:
			if got := ParseBootEntry(before + area).Cmdline; got != original+" "+cmdline {
				t.Errorf("systemd-boot passes on %q", got)
			}
		case AreaUKI:
			if got := strings.TrimRight(before+area, " "); got != original+" "+cmdline {
				t.Errorf("the UKI passes on %q", got)
			}
		case AreaUserData:
			if got, err := reserve.Decode([]byte(area)); err != nil || string(got) != data {
				t.Errorf("user data %q, %v", got, err)
			}
		}
	}
	for _, s := range r.sums {
		want, err := uki.Checksum(s.program, s.size)
		if err != nil || !bytes.Equal(want[:], image[s.at:s.at+4]) {
			t.Errorf("checksum %x, want %x, %v", image[s.at:s.at+4], want, err)
		}
	}
}

// TestCustomizeRefuses checks that what does not fit changes nothing.
func TestCustomizeRefuses(t *testing.T) {
	d, err := New(Hybrid, contents().ReserveInitrd(512), testLoaders(), 0, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	image := load(t, d.Content)
	original := bytes.Clone(image)
	r, err := FindReserved(image, int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		err  error
		want string
	}{
		{r.SetCmdline(image, strings.Repeat("x", 600)), "bytes, but the image reserves 512"},
		{r.SetCmdline(image, "a='b'"), "remove the single quote"},
		{r.SetCmdline(image, "a\nb"), "control character"},
		{r.SetUserData(image, make([]byte, 600)), "the user data has 600 bytes, but the image reserves 480"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("error %v, want %q", c.err, c.want)
		}
	}
	if !bytes.Equal(image, original) {
		t.Error("the image changed")
	}
	long := contents()
	long.Cmdline = strings.Repeat("x", 2000)
	if d, err = New(Hybrid, long.ReserveInitrd(4096), testLoaders(), 0, time.Unix(0, 0)); err != nil {
		t.Fatal(err)
	}
	image = load(t, d.Content)
	if r, err = FindReserved(image, int64(len(image))); err != nil {
		t.Fatal(err)
	}
	if err := r.SetCmdline(image, strings.Repeat("y", 100)); err == nil || !strings.Contains(err.Error(), "bytes too long") {
		t.Errorf("error %v", err)
	}

	plain, err := New(Hybrid, contents(), testLoaders(), 0, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := FindReserved(plain.Content, plain.Size); !errors.Is(err, ErrNothingReserved) {
		t.Errorf("without areas: %v", err)
	}
	signed, err := NewUKI(contents().ReserveInitrd(512), testLoaders().Stub, Packed)
	if err != nil {
		t.Fatal(err)
	}
	image = load(t, signed)
	binary.LittleEndian.PutUint32(image[0x80+24+112+4*8+4:], 8) // size of the table of signatures
	if _, err := FindReserved(image, int64(len(image))); !errors.Is(err, ErrSigned) {
		t.Errorf("signed: %v", err)
	}
}

// TestReserveArchive checks that Linux's reader finds the file after other
// archives.
func TestReserveArchive(t *testing.T) {
	var first bytes.Buffer
	w := cpio.NewWriter(&first)
	if err := errors.Join(w.WriteHeader(cpio.Header{Name: "etc", Inode: 1, Mode: cpio.TypeDir | 0o755, Links: 2}), w.Close()); err != nil {
		t.Fatal(err)
	}
	c := Contents{Initrd: []sparse.Content{sparse.Bytes(first.Bytes()).Pad(512)}}.ReserveInitrd(512)
	r := cpio.NewInitramfsReader(sparse.Concat(c.Initrd...).Reader(), 1<<20)
	defer r.Close()
	var names []string
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, fmt.Sprintf("%s %d", h.Name, h.Size))
	}
	if want := []string{"etc 0", "etc/slipway 0", "etc/slipway/reserve 512"}; !slices.Equal(names, want) {
		t.Errorf("members %q, want %q", names, want)
	}
}

// FuzzFindReserved reads damaged images. It must neither panic nor find areas
// outside of the image.
func FuzzFindReserved(f *testing.F) {
	image, err := NewUKI(contents().ReserveInitrd(512), testLoaders().Stub, Packed)
	if err != nil {
		f.Fatal(err)
	}
	b, err := io.ReadAll(image.Reader())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	cd, err := NewCD(CD{BIOS: true}, contents().ReserveInitrd(512), []tree.Entry{}, testLoaders(), time.Unix(0, 0))
	if err != nil {
		f.Fatal(err)
	}
	if b, err = io.ReadAll(cd.Reader()); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := FindReserved(memory(b), int64(len(b)))
		if err != nil {
			return
		}
		for _, a := range r.Changed() {
			if a.Offset < 0 || a.Size <= 0 || a.Offset > int64(len(b))-a.Size {
				t.Errorf("area %+v of %d bytes", a, len(b))
			}
		}
	})
}
