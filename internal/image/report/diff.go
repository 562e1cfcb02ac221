package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/slipway-build/slipway/exporter/diskmap"
	"github.com/slipway-build/slipway/exporter/eif"
	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/image"
)

// A Diff is the difference between two images, an old and a new one. Its JSON
// form is stable: fields are only added.
type Diff struct {
	Old string `json:"old"`
	New string `json:"new"`
	// Same is set if there is no difference.
	Same       bool            `json:"same"`
	Values     []Change        `json:"values,omitempty"` // kernel, command line and so on
	Components []SizeChange    `json:"components,omitempty"`
	Packages   []PackageChange `json:"packages,omitempty"`
	Containers []Change        `json:"containers,omitempty"`
	Files      []FileChange    `json:"files,omitempty"`
	Blocks     *Blocks         `json:"blocks,omitempty"`
	Warnings   []string        `json:"warnings,omitempty"`
}

// A Change is a value that differs. A value that is missing is "".
type Change struct {
	What string `json:"what"`
	Old  string `json:"old"`
	New  string `json:"new"`
}

// A SizeChange is a component whose size differs, or that only one image has.
type SizeChange struct {
	Name string `json:"name"`
	Old  *Size  `json:"old,omitempty"`
	New  *Size  `json:"new,omitempty"`
}

// A Size is what a component takes.
type Size = image.Size

// A PackageChange is software whose version differs. A version is "" if the
// component does not have the package.
type PackageChange struct {
	Component string `json:"component"`
	Name      string `json:"name"`
	Old       string `json:"old"`
	New       string `json:"new"`
}

// A FileChange is a file that differs. What has "added", "removed" or some of
// "type", "mode", "owner", "target", "device", "attributes" and "content".
type FileChange struct {
	Path string   `json:"path"`
	What []string `json:"what"`
	Old  string   `json:"old,omitempty"` // as in a long listing
	New  string   `json:"new,omitempty"`
}

// Blocks counts the blocks of EBS that differ.
type Blocks struct {
	Size    int64 `json:"blockSize"` // bytes
	Total   int64 `json:"total"`     // of the larger image
	Changed int64 `json:"changed"`
}

// Compare returns the differences between two images and their reports.
func Compare(oldImage, newImage *image.Image) (*Diff, error) {
	a, b := New(oldImage), New(newImage)
	d := &Diff{Old: a.Name, New: b.Name, Warnings: append(slices.Clone(a.Warnings), b.Warnings...)}
	d.values(a, b)
	d.components(a, b)
	d.packages(a, b)
	d.containers(a, b)
	if err := d.files(oldImage.Root, newImage.Root); err != nil {
		return nil, err
	}
	if err := d.blocks(oldImage, newImage); err != nil {
		return nil, err
	}
	d.Same = len(d.Values)+len(d.Components)+len(d.Packages)+len(d.Containers)+len(d.Files) == 0 && (d.Blocks == nil || d.Blocks.Changed == 0)
	return d, nil
}

func (d *Diff) values(a, b *Report) {
	add := func(what, old, now string) {
		if old != now {
			d.Values = append(d.Values, Change{what, old, now})
		}
	}
	add("kind", a.Kind, b.Kind)
	add("size", fmt.Sprint(a.Size), fmt.Sprint(b.Size))
	var k [2]image.Kernel
	for i, r := range []*Report{a, b} {
		if r.Kernel != nil {
			k[i] = *r.Kernel
		}
	}
	add("kernel", k[0].Release, k[1].Release)
	add("architecture", k[0].Architecture, k[1].Architecture)
	add("size of the kernel", fmt.Sprint(k[0].Size), fmt.Sprint(k[1].Size))
	add("command line", a.Cmdline, b.Cmdline)
	var pcrs [2]eif.Measurements
	for i, r := range []*Report{a, b} {
		if r.Enclave != nil {
			pcrs[i] = *r.Enclave
		}
	}
	add("PCR0", pcrs[0].PCR0.String(), pcrs[1].PCR0.String())
	add("PCR1", pcrs[0].PCR1.String(), pcrs[1].PCR1.String())
	add("PCR2", pcrs[0].PCR2.String(), pcrs[1].PCR2.String())
	add("root", a.Root, b.Root)
	both(d, keyed(a.Partitions, func(p image.Partition) string { return fmt.Sprint("partition ", p.Number) }),
		keyed(b.Partitions, func(p image.Partition) string { return fmt.Sprint("partition ", p.Number) }),
		func(p image.Partition) string {
			return fmt.Sprintf("%s %q at %d, %d bytes, %s", p.Type, p.Name, p.Start, p.Size, p.FileSystem)
		})
	both(d, keyed(a.Loaders, func(l image.Loader) string { return "loader for " + l.Firmware + " " + l.Architecture }),
		keyed(b.Loaders, func(l image.Loader) string { return "loader for " + l.Firmware + " " + l.Architecture }),
		func(l image.Loader) string {
			return fmt.Sprintf("%s %s, signed: %s, command line: %s", l.Name, l.Path, yes(l.Signed), l.Cmdline)
		})
}

// keyed returns a map of a list.
func keyed[V any](list []V, key func(V) string) map[string]V {
	m := map[string]V{}
	for _, v := range list {
		m[key(v)] = v
	}
	return m
}

// both adds the entries of two maps that differ.
func both[V any](d *Diff, a, b map[string]V, text func(V) string) {
	all := maps.Clone(a)
	maps.Copy(all, b)
	for _, key := range sortedKeys(all) {
		var old, now string
		if v, ok := a[key]; ok {
			old = text(v)
		}
		if v, ok := b[key]; ok {
			now = text(v)
		}
		if old != now {
			d.Values = append(d.Values, Change{key, old, now})
		}
	}
}

func (d *Diff) components(a, b *Report) {
	old, now := keyed(a.Components, func(s Size) string { return s.Name }), keyed(b.Components, func(s Size) string { return s.Name })
	all := maps.Clone(old)
	maps.Copy(all, now)
	for _, name := range sortedKeys(all) {
		x, inOld := old[name]
		y, inNew := now[name]
		if inOld && inNew && x.Unpacked == y.Unpacked && x.Files == y.Files {
			continue
		}
		c := SizeChange{Name: name}
		if inOld {
			c.Old = &x
		}
		if inNew {
			c.New = &y
		}
		d.Components = append(d.Components, c)
	}
}

func (d *Diff) packages(a, b *Report) {
	key := func(p Package) string { return p.Component + "\x00" + p.Name }
	versions := func(list []Package) map[string][]string {
		m := map[string][]string{}
		for _, p := range list {
			m[key(p)] = append(m[key(p)], p.Version)
		}
		for k := range m {
			slices.Sort(m[k])
			m[k] = slices.Compact(m[k])
		}
		return m
	}
	old, now := versions(a.Packages), versions(b.Packages)
	all := maps.Clone(old)
	maps.Copy(all, now)
	for _, k := range sortedKeys(all) {
		x, y := strings.Join(old[k], ", "), strings.Join(now[k], ", ")
		if x == y && len(old[k]) > 0 == (len(now[k]) > 0) {
			continue
		}
		component, name, _ := strings.Cut(k, "\x00")
		d.Packages = append(d.Packages, PackageChange{component, name, x, y})
	}
}

// containers compares the configurations of containers, field by field.
func (d *Diff) containers(a, b *Report) {
	key := func(c Container) string { return c.Section + "/" + c.Name }
	old, now := keyed(a.Containers, key), keyed(b.Containers, key)
	all := maps.Clone(old)
	maps.Copy(all, now)
	for _, name := range sortedKeys(all) {
		x, inOld := old[name]
		y, inNew := now[name]
		switch {
		case !inOld:
			d.Containers = append(d.Containers, Change{What: name, New: "added"})
		case !inNew:
			d.Containers = append(d.Containers, Change{What: name, Old: "removed"})
		default:
			fieldsOfX, fieldsOfY := fields(x), fields(y)
			keys := maps.Clone(fieldsOfX)
			maps.Copy(keys, fieldsOfY)
			for _, field := range sortedKeys(keys) {
				if fieldsOfX[field] != fieldsOfY[field] {
					d.Containers = append(d.Containers, Change{name + " " + field, fieldsOfX[field], fieldsOfY[field]})
				}
			}
		}
	}
}

// fields returns the JSON form of the fields of a container.
func fields(c Container) map[string]string {
	data, err := json.Marshal(c)
	if err != nil {
		return nil // a container has no values that JSON cannot hold
	}
	raw := map[string]json.RawMessage{}
	_ = json.Unmarshal(data, &raw)
	m := map[string]string{}
	for key, value := range raw {
		m[key] = string(value)
	}
	return m
}

func (d *Diff) files(a, b []tree.Entry) error {
	for len(a) > 0 || len(b) > 0 {
		order := 0
		switch {
		case len(a) == 0:
			order = 1
		case len(b) == 0:
			order = -1
		default:
			order = strings.Compare(a[0].Path, b[0].Path)
		}
		switch {
		case order < 0:
			d.Files = append(d.Files, FileChange{Path: a[0].Path, What: []string{"removed"}, Old: Listing(a[0])})
			a = a[1:]
		case order > 0:
			d.Files = append(d.Files, FileChange{Path: b[0].Path, What: []string{"added"}, New: Listing(b[0])})
			b = b[1:]
		default:
			what, err := differences(a[0], b[0])
			if err != nil {
				return err
			}
			if len(what) > 0 {
				d.Files = append(d.Files, FileChange{a[0].Path, what, Listing(a[0]), Listing(b[0])})
			}
			a, b = a[1:], b[1:]
		}
	}
	return nil
}

func differences(a, b tree.Entry) ([]string, error) {
	if a.Type != b.Type {
		return []string{"type"}, nil
	}
	var what []string
	for name, differs := range map[string]bool{
		"mode": a.Mode != b.Mode, "owner": a.UID != b.UID || a.GID != b.GID, "target": a.Link != b.Link,
		"device": a.Major != b.Major || a.Minor != b.Minor, "attributes": !maps.Equal(a.Xattrs, b.Xattrs),
	} {
		if differs {
			what = append(what, name)
		}
	}
	slices.Sort(what)
	if a.Type != tree.File {
		return what, nil
	}
	same := a.Size == b.Size
	if same && a.Size > 0 {
		var err error
		if same, err = sameContent(a, b); err != nil {
			return nil, err
		}
	}
	if !same {
		what = append(what, "content")
	}
	return what, nil
}

func sameContent(a, b tree.Entry) (bool, error) {
	x, err := a.Open()
	if err != nil {
		return false, fmt.Errorf("%s: %w", a.Path, err)
	}
	defer x.Close()
	y, err := b.Open()
	if err != nil {
		return false, fmt.Errorf("%s: %w", b.Path, err)
	}
	defer y.Close()
	p, q := make([]byte, 128<<10), make([]byte, 128<<10)
	for left := a.Size; left > 0; {
		n := min(left, int64(len(p)))
		if _, err := io.ReadFull(x, p[:n]); err != nil {
			return false, fmt.Errorf("%s: %w", a.Path, err)
		}
		if _, err := io.ReadFull(y, q[:n]); err != nil {
			return false, fmt.Errorf("%s: %w", b.Path, err)
		}
		if !bytes.Equal(p[:n], q[:n]) {
			return false, nil
		}
		left -= n
	}
	return true, nil
}

// Listing describes a file as ls -l does: mode, owner, group, size or device
// number, path and target.
func Listing(e tree.Entry) string {
	info := tree.Mode(e)
	length := fmt.Sprint(e.Size)
	if e.Type == tree.Char || e.Type == tree.Block {
		length = fmt.Sprintf("%d,%d", e.Major, e.Minor)
	}
	text := fmt.Sprintf("%s %d:%d %s %s", info, e.UID, e.GID, length, quote(e.Path))
	if e.Type == tree.Symlink {
		text += " -> " + quote(e.Link)
	}
	return text
}

func (d *Diff) blocks(a, b *image.Image) error {
	x, y := a.Blocks(), b.Blocks()
	if x == nil || y == nil {
		return nil
	}
	const blockSize = diskmap.BlockSize
	size := max(a.Size, b.Size)
	d.Blocks = &Blocks{Size: blockSize, Total: (size + blockSize - 1) / blockSize}
	p, q := make([]byte, blockSize), make([]byte, blockSize)
	for at := int64(0); at < size; at += blockSize {
		for _, r := range []struct {
			io.ReaderAt
			to []byte
		}{{x, p}, {y, q}} {
			n, err := r.ReadAt(r.to, at)
			if err != nil && err != io.EOF {
				return err
			}
			clear(r.to[n:])
		}
		if !bytes.Equal(p, q) {
			d.Blocks.Changed++
		}
	}
	return nil
}

// WriteText writes the differences for people.
func (d *Diff) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(format string, args ...any) { fmt.Fprintf(t, format+"\n", args...) }
	if d.Same {
		line("%s and %s are the same", quote(d.Old), quote(d.New))
		return t.Flush()
	}
	line("--- %s\n+++ %s", quote(d.Old), quote(d.New))
	for _, c := range append(slices.Clone(d.Values), d.Containers...) {
		line("%s\t%s\t->\t%s", quote(c.What), orNone(c.Old), orNone(c.New))
	}
	if len(d.Packages) > 0 {
		line("\nPACKAGE\tCOMPONENT\tOLD\t\tNEW")
		for _, p := range d.Packages {
			line("%s\t%s\t%s\t->\t%s", quote(p.Name), quote(p.Component), orNone(p.Old), orNone(p.New))
		}
	}
	if len(d.Components) > 0 {
		line("\nCOMPONENT\tOLD\t\tNEW")
		for _, c := range d.Components {
			line("%s\t%s\t->\t%s", quote(c.Name), sizeOf(c.Old), sizeOf(c.New))
		}
	}
	if len(d.Files) > 0 {
		line("\nFILE\tCHANGE")
		for _, f := range d.Files {
			line("%s\t%s", quote(f.Path), strings.Join(f.What, ", "))
		}
	}
	if d.Blocks != nil {
		line("\n%d of %d blocks of 512 KiB differ", d.Blocks.Changed, d.Blocks.Total)
	}
	for _, warning := range d.Warnings {
		line("warning: %s", quote(warning))
	}
	return t.Flush()
}

func orNone(text string) string {
	if text == "" {
		return "(none)"
	}
	return quote(text)
}

func sizeOf(s *Size) string {
	if s == nil {
		return "(none)"
	}
	return fmt.Sprintf("%s in %d files", size(s.Unpacked), s.Files)
}

// WriteFirst writes the first differences for people: values, and at most limit
// files of each component.
func (d *Diff) WriteFirst(w io.Writer, limit int) error {
	var out bytes.Buffer
	for _, c := range append(slices.Clone(d.Values), d.Containers...) {
		fmt.Fprintf(&out, "  %s: %s -> %s\n", quote(c.What), orNone(c.Old), orNone(c.New))
	}
	files := map[string][]string{}
	for _, f := range d.Files {
		component := image.Component(f.Path)
		files[component] = append(files[component], fmt.Sprintf("%s (%s)", quote(f.Path), strings.Join(f.What, ", ")))
	}
	for _, component := range sortedKeys(files) {
		all := files[component]
		first := strings.Join(all[:min(limit, len(all))], ", ")
		if more := len(all) - limit; more > 0 {
			first += fmt.Sprintf(" and %d more", more)
		}
		fmt.Fprintf(&out, "  %s: %s\n", quote(component), first)
	}
	_, err := w.Write(out.Bytes())
	return err
}
