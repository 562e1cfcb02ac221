package report

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/image"
	"github.com/slipway-build/slipway/internal/testutil/golden"
)

// machine returns an image of a machine.
func machine(release string, more ...tree.Entry) *image.Image {
	const config = `{"root":{"readonly":true},"process":{"args":["/web"],"user":{"uid":33,"gid":33},"noNewPrivileges":true,` +
		`"capabilities":{"bounding":["CAP_NET_BIND_SERVICE"]}},"mounts":[{"type":"bind","source":"/etc/resolv.conf","destination":"/etc/resolv.conf","options":["rbind","ro"]},` +
		`{"type":"tmpfs","source":"tmpfs","destination":"/tmp"}],"linux":{"namespaces":[{"type":"pid"},{"type":"mount"}],"resources":{"memory":{"limit":67108864},"pids":{"limit":10}}}}`
	status := "Package: nginx\nStatus: install ok installed\nVersion: " + release + "\nArchitecture: amd64\n"
	entries := append([]tree.Entry{
		tree.NewFile("containers/services/web/config.json", 0o644, config),
		tree.NewFile("containers/services/web/lower/var/lib/dpkg/status", 0o644, status),
		tree.NewFile("containers/services/web/lower/web", 0o755|tree.SetUID, strings.Repeat("x", 3<<20)),
		tree.NewFile("init", 0o755, strings.Repeat("i", 1<<20)),
		tree.NewSymlink("sbin", "usr/sbin"),
	}, more...)
	return &image.Image{
		Name: "web.raw", Kind: "raw disk", Size: 64 << 20, Files: []image.File{{Name: "web.raw", Size: 64 << 20}},
		Partitions: []image.Partition{{Number: 1, Type: "EFI system", Start: 1 << 20, Size: 62 << 20, FileSystem: "FAT", Free: 4 << 20}},
		Loaders:    []image.Loader{{Firmware: "UEFI", Name: "systemd-boot", Path: "EFI/BOOT/BOOTX64.EFI", Architecture: "amd64", Entry: "loader/entries/slipway.conf"}},
		Kernel:     &image.Kernel{Path: "kernel", Architecture: "amd64", Release: release, Size: 8 << 20},
		Cmdline:    "console=ttyS0", RootKind: "initramfs", Root: tree.AddParents(entries), Warnings: []string{"a name with \x1b[31m colors"},
	}
}

func checkGolden(t *testing.T, name string, write func(*bytes.Buffer) error) {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	golden.Equal(t, filepath.Join("testdata", name), b.Bytes())
}

func TestReport(t *testing.T) {
	r := New(machine("6.12.1"))
	checkGolden(t, "web.txt", func(b *bytes.Buffer) error { return r.WriteText(b, true) })
	checkGolden(t, "web.html", func(b *bytes.Buffer) error { return r.WriteHTML(b) })
	checkGolden(t, "web.json", func(b *bytes.Buffer) error {
		data, err := json.MarshalIndent(r, "", "  ")
		b.Write(append(data, '\n'))
		return err
	})
}

func TestCompare(t *testing.T) {
	old := machine("6.12.1", tree.NewFile("etc/old", 0o644, "x"), tree.NewFile("etc/mode", 0o644, "x"), tree.NewSymlink("etc/type", "x"))
	changed := machine("6.12.2", tree.NewFile("etc/new", 0o644, "x"), tree.NewFile("etc/mode", 0o600, "y"), tree.NewFile("etc/type", 0o644, "x"))
	changed.Cmdline = "console=ttyS0 quiet"
	d, err := Compare(old, changed)
	if err != nil {
		t.Fatal(err)
	}
	checkGolden(t, "diff.txt", func(b *bytes.Buffer) error { return d.WriteText(b) })
	checkGolden(t, "diff.html", func(b *bytes.Buffer) error { return d.WriteHTML(b) })
	var paths []string
	for _, f := range d.Files {
		paths = append(paths, f.Path+": "+strings.Join(f.What, " "))
	}
	if want := []string{"containers/services/web/lower/var/lib/dpkg/status: content", "etc/mode: mode content", "etc/new: added", "etc/old: removed", "etc/type: type"}; !reflect.DeepEqual(paths, want) {
		t.Errorf("files %q, want %q", paths, want)
	}
	if same, err := Compare(old, old); err != nil || !same.Same {
		t.Errorf("an image differs from itself: %+v, %v", same, err)
	}
}

// Tiles cover the map without overlaps.
func TestTreemap(t *testing.T) {
	tiles := New(machine("6.12.1")).treemap()
	var area float64
	for i, a := range tiles {
		area += a.Width * a.Height
		for _, b := range tiles[:i] {
			const slack = 1e-6
			if a.X+slack < b.X+b.Width && b.X+slack < a.X+a.Width && a.Y+slack < b.Y+b.Height && b.Y+slack < a.Y+a.Height {
				t.Errorf("%s overlaps %s", a.Name, b.Name)
			}
		}
	}
	if whole := mapWidth * mapHeight; area < whole*0.999 || area > whole*1.001 || len(tiles) != 3 {
		t.Errorf("%d tiles cover %.0f of %.0f", len(tiles), area, whole)
	}
}

func TestSizes(t *testing.T) {
	large := strings.Repeat("documentation", 10_000)
	i := machine("6.12.1",
		tree.NewFile("containers/services/web/lower/usr/share/doc/web/manual", 0o644, large),
		tree.NewFile("usr/lib/a.so", 0o644, strings.Repeat("a", 100_000)), tree.NewFile("usr/lib/b.so", 0o644, strings.Repeat("a", 100_000)),
		tree.NewFile("usr/lib/c.so", 0o644, strings.Repeat("b", 100_000)),
	)
	s, err := NewSizes(i)
	if err != nil {
		t.Fatal(err)
	}
	checkGolden(t, "sizes.txt", func(b *bytes.Buffer) error { return s.WriteText(b) })
	want := []SizeHint{
		{"services/web", "documentation", 130_000},
		{"base", "copies of usr/lib/a.so: make hard links", 100_000},
	}
	if !reflect.DeepEqual(s.Hints, want) {
		t.Errorf("hints %+v, want %+v", s.Hints, want)
	}
}
