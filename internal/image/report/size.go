package report

import (
	"crypto/sha256"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/image"
)

// Sizes say what takes the space in an image, and what could be left out.
type Sizes struct {
	Kernel     int64      `json:"kernel,omitempty"` // bytes
	Components []Size     `json:"components"`
	Compressed int64      `json:"compressed,omitempty"` // bytes, of the kernel and all components
	Unpacked   int64      `json:"unpacked"`             // bytes, of all components
	Hints      []SizeHint `json:"hints,omitempty"`
}

// A SizeHint is something in a component that a machine can do without.
type SizeHint struct {
	Component string `json:"component"`
	What      string `json:"what"`
	Unpacked  int64  `json:"unpacked"` // bytes
}

// minHint is how many bytes are worth a hint.
const minHint = 64 << 10

// unneeded are files that no program reads at run time.
var unneeded = []struct {
	what  string
	match func(file string) bool
}{
	{"documentation", func(f string) bool {
		return strings.Contains(f, "/usr/share/doc/") || strings.Contains(f, "/usr/share/man/") || strings.Contains(f, "/usr/share/info/")
	}},
	{"translations", func(f string) bool { return strings.Contains(f, "/usr/share/locale/") }},
	{"caches of package managers", func(f string) bool {
		return strings.Contains(f, "/var/cache/apt/") || strings.Contains(f, "/var/lib/apt/lists/") || strings.Contains(f, "/var/cache/apk/")
	}},
	{"static libraries and headers", func(f string) bool {
		return path.Ext(f) == ".a" && strings.Contains(f, "/lib/") || strings.Contains(f, "/usr/include/")
	}},
}

// NewSizes measures an image.
func NewSizes(i *image.Image) (*Sizes, error) {
	s := &Sizes{Components: i.Components()}
	if i.Kernel != nil {
		s.Kernel, s.Compressed = i.Kernel.Size, i.Kernel.Size
	}
	for _, c := range s.Components {
		s.Compressed += c.Compressed
		s.Unpacked += c.Unpacked
	}
	hints := map[SizeHint]int64{}
	for _, e := range i.Root {
		for _, u := range unneeded {
			if e.Type == tree.File && u.match("/"+e.Path) {
				hints[SizeHint{Component: image.Component(e.Path), What: u.what}] += e.Size
			}
		}
	}
	copies, err := duplicates(i.Root)
	if err != nil {
		return nil, err
	}
	for hint, bytes := range copies {
		hints[hint] += bytes
	}
	for hint, bytes := range hints {
		if hint.Unpacked = bytes; bytes >= minHint {
			s.Hints = append(s.Hints, hint)
		}
	}
	slices.SortFunc(s.Hints, func(a, b SizeHint) int {
		if a.Unpacked != b.Unpacked {
			return int(min(1, max(-1, b.Unpacked-a.Unpacked)))
		}
		return strings.Compare(a.Component+a.What, b.Component+b.What)
	})
	return s, nil
}

// duplicates finds files that a component has more than once.
func duplicates(root []tree.Entry) (map[SizeHint]int64, error) {
	type key struct {
		component string
		size      int64
	}
	groups := map[key][]tree.Entry{}
	inodes := map[uint64]bool{}
	for _, e := range root {
		if e.Type != tree.File || e.Size < minHint || e.Inode != 0 && inodes[e.Inode] {
			continue
		}
		inodes[e.Inode] = true
		k := key{image.Component(e.Path), e.Size}
		groups[k] = append(groups[k], e)
	}
	found := map[SizeHint]int64{}
	for k, entries := range groups {
		if len(entries) < 2 {
			continue
		}
		first := map[[sha256.Size]byte]string{}
		for _, e := range entries {
			digest := sha256.New()
			if _, err := io.Copy(digest, io.NewSectionReader(e.ReaderAt(), 0, e.Size)); err != nil {
				return nil, err
			}
			sum := [sha256.Size]byte(digest.Sum(nil))
			if original, ok := first[sum]; ok {
				found[SizeHint{Component: k.component, What: fmt.Sprintf("copies of %s: make hard links", original)}] += e.Size
			} else {
				first[sum] = e.Path
			}
		}
	}
	return found, nil
}

// WriteText writes the sizes for people.
func (s *Sizes) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	line := func(format string, args ...any) { fmt.Fprintf(t, format+"\t\n", args...) }
	line("COMPONENT\tCOMPRESSED\tUNPACKED")
	if s.Kernel > 0 {
		line("kernel\t%s\t", size(s.Kernel))
	}
	for _, c := range s.Components {
		compressed := ""
		if c.Compressed > 0 {
			compressed = size(c.Compressed)
		}
		line("%s\t%s\t%s", quote(c.Name), compressed, size(c.Unpacked))
	}
	line("total\t%s\t%s", size(s.Compressed), size(s.Unpacked))
	if err := t.Flush(); err != nil {
		return err
	}
	for n, hint := range s.Hints {
		if n == 0 {
			fmt.Fprintln(w, "\nWhat the machine could do without:")
		}
		fmt.Fprintf(w, "  %s: %s, %s\n", quote(hint.Component), quote(hint.What), size(hint.Unpacked))
	}
	return nil
}
