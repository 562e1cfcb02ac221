package segment

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-build/slipway/exporter/tree"
)

// Mount points are made where the links of the image lead, and only if they are
// missing.
func TestMountPoints(t *testing.T) {
	image := []tree.Entry{
		tree.NewDir("."), tree.NewDir("data"), tree.NewDir("etc"), tree.NewSymlink("etc/app", "/data"), tree.NewFile("etc/conf", 0o600, "x"),
		tree.NewSymlink("loop", "loop"), tree.NewSymlink("out", "../../new"),
	}
	add := func(texts ...string) ([]string, error) {
		var points []MountPoint
		for _, text := range texts {
			point, err := ParseMountPoint(text)
			if err != nil {
				t.Fatal(err)
			}
			points = append(points, point)
		}
		entries, err := addMountPoints(image, points)
		var added []string
		for _, e := range entries {
			added = append(added, e.Type.String()+" "+e.Path)
		}
		return added, err
	}
	before, err := add()
	if err != nil {
		t.Fatal(err)
	}
	after, err := add("dir:etc", "file:/etc/conf", ":etc/conf", "file:etc/app/web/web.conf", "dir:etc/app/web/d", "dir:out", "dir:a/b")
	if err != nil {
		t.Fatal(err)
	}
	var added []string
	for _, e := range after {
		if !strings.Contains("\n"+strings.Join(before, "\n")+"\n", "\n"+e+"\n") {
			added = append(added, e)
		}
	}
	want := []string{"dir a", "dir a/b", "dir data/web", "dir data/web/d", "file data/web/web.conf", "dir new"}
	if diff := cmp.Diff(want, added); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for point, want := range map[string]string{
		"dir:etc/conf":    "mount point etc/conf: is a file, must be a dir",
		"file:etc":        "mount point etc: is a dir, must be a file",
		"dir:etc/conf/x":  "mount point etc/conf/x: it is below etc/conf, which is a file",
		"dir:loop/x":      "mount point loop/x: ",
		":etc/app/x.conf": `mount point /etc/app/x.conf: not in the image, and unknown whether it must be a file or a directory`,
	} {
		if _, err := add(point); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %q", point, err, want)
		}
	}
	for _, text := range []string{"x:etc", "etc", "dir:../x", "dir:"} {
		if m, err := ParseMountPoint(text); err == nil {
			t.Errorf("%q: %+v", text, m)
		}
	}
}
