package bundle

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The mount points that are in another mount need not exist, and links lead to
// files of the image.
func TestPoints(t *testing.T) {
	dir := writeBundle(t, map[string]string{
		"config.json": `{
			"root": {"path": "rootfs", "readonly": true}, "process": {"cwd": "/srv/app"},
			"mounts": [
				{"destination": "/proc"}, {"destination": "/dev"}, {"destination": "/dev/pts"}, {"destination": "/etc/app/app.conf"},
				{"destination": "/run/"}, {"destination": "/run/x/y"}, {"destination": "//data/../data"}
			]}`,
		"runtime.json": `{"mounts": [{"destination": "early"}, {"destination": "/elsewhere"}], "mkdir": ["dev/made", "made", "/var/x"]}`,
	})
	b, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	points, err := b.points()
	want := []string{"/srv/app", "/proc", "/dev", "/etc/app/app.conf", "/run", "/data", "/early", "/made"}
	if diff := cmp.Diff(want, points); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	root := b.root()
	for _, dir := range []string{"srv", "proc", "dev", "run", "early", "made", "real", "data"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	missing := func(want string) {
		t.Helper()
		if got, err := b.lacks(points); got != want || err != nil {
			t.Errorf("lacks %q, want %q, %v", got, want, err)
		}
	}
	missing("/srv/app")
	// A link out of the image leads to its root.
	if err := os.Symlink("../../../real", filepath.Join(root, "srv/app")); err != nil {
		t.Fatal(err)
	}
	missing("/etc/app/app.conf")
	if err := os.Symlink("/real", filepath.Join(root, "etc")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(root, "real/app/app.conf"), 0o755); err != nil {
		t.Fatal(err)
	}
	missing("")
}

// A writable root filesystem needs nothing.
func TestPointsOfWritable(t *testing.T) {
	for _, config := range []string{`{"root": {"path": "rootfs"}, "process": {"cwd": "/none"}}`, ""} {
		files := map[string]string{"config.json": config}
		if config == "" {
			files = map[string]string{"other": ""}
		}
		b, err := Open(writeBundle(t, files))
		if err != nil {
			t.Fatal(err)
		}
		if points, err := b.points(); points != nil || err != nil {
			t.Errorf("%q, %v", points, err)
		}
	}
}
