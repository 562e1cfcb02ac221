package bundle

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/need"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/internal/contract/runtimejson"
)

// ownMounts moves the test to a new mount namespace. Its thread ends with the
// test.
func ownMounts(t *testing.T) {
	t.Helper()
	need.Root(t)
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		need.Missing(t, "no mount namespace: %v", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		need.Missing(t, "cannot make the mount namespace private: %v", err)
	}
}

// A writable bundle in the form that the build side makes, with an additional
// mount and directories.
func TestPrepareAndRelease(t *testing.T) {
	ownMounts(t)
	outside := t.TempDir()
	dir := writeBundle(t, map[string]string{"lower/etc/motd": "hello"})
	for _, name := range []string{"tmp", "rootfs"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b := &Bundle{Dir: dir, Name: "000-setup", Runtime: runtimejson.Runtime{
		Mounts: []specs.Mount{
			{Type: "tmpfs", Source: "tmpfs", Destination: dir + "/tmp"},
			{Destination: dir + "/tmp", Options: []string{"remount", "private"}},
			{Type: "overlay", Source: "overlay", Destination: dir + "/rootfs", Options: []string{
				"lowerdir=" + dir + "/lower", "upperdir=" + dir + "/tmp/upper", "workdir=" + dir + "/tmp/work",
			}},
			{Source: dir + "/lower/etc/motd", Destination: "etc/issue", Options: []string{"bind", "ro"}},
			{Type: "tmpfs", Source: "tmpfs", Destination: outside + "/setup", Options: []string{"mode=0700"}},
		},
		Mkdir: []string{outside + "/setup/made", "made/inside"},
	}}
	if err := b.Prepare(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"etc/motd", "etc/issue", "made/inside"} {
		if _, err := os.Stat(filepath.Join(dir, "rootfs", path)); err != nil {
			t.Error(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "rootfs/etc/issue"), nil, 0o644); err == nil {
		t.Error("a bind with option ro can be written")
	}
	if err := os.WriteFile(filepath.Join(dir, "rootfs/etc/motd"), []byte("changed"), 0o644); err != nil {
		t.Error(err)
	}
	if err := b.Release(); err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(filepath.Join(dir, "lower/etc/motd")); string(text) != "hello" {
		t.Errorf("the lower layer was changed to %q", text)
	}
	if entries, err := os.ReadDir(filepath.Join(dir, "rootfs")); err != nil || len(entries) != 0 {
		t.Errorf("rootfs still holds %v, %v", entries, err)
	}
	if _, err := os.Stat(outside + "/setup/made"); err != nil {
		t.Errorf("a mount outside the bundle is gone: %v", err)
	}
	UnmountBelow(outside)
}

func TestBindNamespace(t *testing.T) {
	ownMounts(t)
	path := filepath.Join(t.TempDir(), "ns", "net")
	if err := bindNamespace("/proc/self/ns/net", path); err != nil {
		t.Fatal(err)
	}
	defer UnmountBelow(path)
	var kept, own unix.Stat_t
	if err := unix.Stat(path, &kept); err != nil {
		t.Fatal(err)
	}
	if err := unix.Stat("/proc/self/ns/net", &own); err != nil {
		t.Fatal(err)
	}
	if kept.Ino != own.Ino {
		t.Errorf("%s is inode %d, the namespace is %d", path, kept.Ino, own.Ino)
	}
}

// TestHostileRootfs prepares a bundle whose image has symbolic links where
// runtime.json wants directories and mounts.
func TestHostileRootfs(t *testing.T) {
	ownMounts(t)
	outside, dir := t.TempDir(), t.TempDir()
	rootfs := filepath.Join(dir, "rootfs")
	if err := os.MkdirAll(filepath.Join(rootfs, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"abs": outside, "up": "../../../../.." + outside, "etc/run": "/etc", "loop": "loop"} {
		if err := os.Symlink(target, filepath.Join(rootfs, name)); err != nil {
			t.Fatal(err)
		}
	}
	b := &Bundle{Dir: dir, Runtime: runtimejson.Runtime{
		Mkdir:  []string{"abs/one", "up/two", "etc/run/three", "../../../four"},
		Mounts: []specs.Mount{{Destination: "abs/tmp", Type: "tmpfs", Source: "tmpfs"}},
	}}
	if err := b.Prepare(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Release() })
	if files, err := os.ReadDir(outside); err != nil || len(files) > 0 {
		t.Errorf("outside of the bundle: %v, %v", files, err)
	}
	for _, made := range []string{outside + "/one", outside + "/two", outside + "/tmp", "etc/three", "four"} {
		if info, err := os.Stat(filepath.Join(rootfs, made)); err != nil || !info.IsDir() {
			t.Errorf("%s: %v", made, err)
		}
	}
	b = &Bundle{Dir: dir, Runtime: runtimejson.Runtime{Mkdir: []string{"loop/x"}}}
	if err := b.Prepare(); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a loop: %v", err)
	}
}
