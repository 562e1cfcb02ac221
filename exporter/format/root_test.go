package format

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/exporter/verity"
	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/testutil/need"
)

// modular returns the files of a machine whose kernel has modules. Keys are
// paths.
func modular(change func(map[string]string)) []tree.Entry {
	const dir = "usr/lib/modules/6.1/"
	files := map[string]string{
		dir + "modules.dep":                     "kernel/fs/squashfs.ko: kernel/lib/unpack.ko\nkernel/lib/unpack.ko:\nkernel/drivers/virtio_blk.ko.xz:\nkernel/net/other.ko:\n",
		dir + "modules.alias":                   "alias virtio:d00000002v* virtio_blk\n",
		dir + "kernel/fs/squashfs.ko":           "squashfs",
		dir + "kernel/lib/unpack.ko":            "unpack",
		dir + "kernel/drivers/virtio_blk.ko.xz": "virtio",
		dir + "kernel/net/other.ko":             "other",
		"bin/init":                              "\x7fELF/" + contract.StartupMarker,
	}
	change(files)
	var entries []tree.Entry
	for path, content := range files {
		entries = append(entries, tree.NewFile(path, 0o755, content))
	}
	return tree.AddParents(append(entries, tree.NewSymlink("sbin", "bin"), tree.NewSymlink("lib", "usr/lib")))
}

// TestStartup checks that the small initramfs has the modules for the root
// filesystem with their dependencies, and the machine's init.
func TestStartup(t *testing.T) {
	need.Program(t, "cpio", "cpio")
	for name, test := range map[string]struct {
		change func(map[string]string)
		files  string // "" for no initramfs
		err    string
	}{
		"modules": {func(map[string]string) {}, ". .slipway-startup init lib lib/modules lib/modules/6.1 lib/modules/6.1/kernel " +
			"lib/modules/6.1/kernel/drivers lib/modules/6.1/kernel/drivers/virtio_blk.ko.xz lib/modules/6.1/kernel/fs lib/modules/6.1/kernel/fs/squashfs.ko " +
			"lib/modules/6.1/kernel/lib lib/modules/6.1/kernel/lib/unpack.ko lib/modules/6.1/modules.alias lib/modules/6.1/modules.dep", ""},
		"built in": {func(files map[string]string) {
			files["usr/lib/modules/6.1/modules.dep"] = "kernel/net/other.ko:\n"
		}, "", ""},
		"named as built in": {func(files map[string]string) {
			files["usr/lib/modules/6.1/modules.dep"] = "kernel/net/other.ko:\n"
			files["usr/lib/modules/6.1/modules.builtin"] = "kernel/fs/squashfs/squashfs.ko\n"
		}, "", ""},
		"neither": {func(files map[string]string) {
			files["usr/lib/modules/6.1/modules.dep"] = "kernel/drivers/virtio_blk.ko.xz:\n"
			files["usr/lib/modules/6.1/modules.builtin"] = "kernel/fs/ext4/ext4.ko\n"
		}, "", "the kernel cannot mount SquashFS: the module squashfs is neither built in nor in /usr/lib/modules/6.1: use a kernel.tar with it"},
		"no modules": {func(files map[string]string) { delete(files, "usr/lib/modules/6.1/modules.dep") }, "", ""},
		"no init":    {func(files map[string]string) { delete(files, "bin/init"); files["bin/x"] = "" }, "", "there is no /sbin/init: add an init image"},
		"other init": {func(files map[string]string) { files["bin/init"] = "busybox" }, "", "/sbin/init does not support that: use slipwaybuild/init"},
		"missing": {func(files map[string]string) { delete(files, "usr/lib/modules/6.1/kernel/lib/unpack.ko") }, "",
			"usr/lib/modules/6.1/modules.dep names kernel/lib/unpack.ko, which does not exist"},
	} {
		t.Run(name, func(t *testing.T) {
			archive, ok := startup(t, modular(test.change), squashfsRoot, test.err)
			if !ok {
				return
			}
			var got []string
			if archive != nil {
				got = append(archive, ".")
				slices.Sort(got)
			}
			if strings.Join(got, " ") != test.files {
				t.Errorf("files\n%s, want\n%s", strings.Join(got, " "), test.files)
			}
		})
	}
}

// startup returns the paths in the small initramfs of a root, or nil if there is
// none. It returns false for an error, which must contain want unless that is "".
func startup(t *testing.T, files []tree.Entry, root rootFS, want string) (paths []string, ok bool) {
	t.Helper()
	j := &job{in: Input{Compression: segment.Compression{Algorithm: "none"}}}
	parts, err := j.startup(files, root)
	if want != "" {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
		return nil, false
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(parts) == 0 {
		return nil, true
	}
	cpio := exec.Command("cpio", "-it", "--quiet")
	cpio.Stdin = sparse.Concat(parts...).Reader()
	out, err := cpio.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out)), true
}

// TestPrepareRoot checks that the build warns of attributes that a file system
// cannot store, and that the mount points of the machine exist.
func TestPrepareRoot(t *testing.T) {
	program := tree.NewFile("bin/ping", 0o755, "x")
	program.Xattrs = map[string]string{"security.capability": "x", "user.note": "x"}
	tmp := tree.NewDir("tmp")
	tmp.Mode |= tree.Sticky
	for root, want := range map[*rootFS][]string{
		&squashfsRoot: nil,
		&erofsRoot:    nil,
		&isoRoot: {
			"ISO 9660 cannot store the extended attribute security.capability; files that lose it: 1",
			"ISO 9660 cannot store the extended attribute user.note; files that lose it: 1",
		},
	} {
		var warnings []string
		entries := root.prepare(tree.AddParents([]tree.Entry{program, tmp}), func(w string) { warnings = append(warnings, w) })
		if !slices.Equal(warnings, want) {
			t.Errorf("%s: warnings %q, want %q", root.name, warnings, want)
		}
		var got []string
		for _, e := range entries {
			got = append(got, e.Path)
		}
		if want := "bin bin/ping dev mnt proc run sys tmp var"; strings.Join(got, " ") != want {
			t.Errorf("%s: files %q, want %s", root.name, got, want)
		}
	}
}

// TestVerityStartup checks that the small initramfs of a root that dm-verity
// verifies has the modules for that, and an init, which it needs with built-in
// modules too.
func TestVerityStartup(t *testing.T) {
	const dir = "usr/lib/modules/6.1/"
	modules := func(files map[string]string) {
		files[dir+"modules.dep"] = "kernel/fs/erofs.ko:\nkernel/drivers/dm-verity.ko: kernel/drivers/dm-mod.ko\nkernel/drivers/dm-mod.ko:\nkernel/crypto/sha256-fast.ko:\n"
		files[dir+"modules.alias"] = "alias crypto-sha256 sha256_fast\n"
		for _, name := range []string{"fs/erofs", "drivers/dm-verity", "drivers/dm-mod", "crypto/sha256-fast"} {
			files[dir+"kernel/"+name+".ko"] = "module"
		}
		files["bin/init"] += verity.Reaction
	}
	for name, test := range map[string]struct {
		change func(map[string]string)
		want   string // files
		err    string
	}{
		"modules": {modules, "crypto/sha256-fast.ko drivers/dm-mod.ko drivers/dm-verity.ko fs/erofs.ko init", ""},
		"built in": {func(files map[string]string) {
			modules(files)
			files[dir+"modules.dep"] = "kernel/net/other.ko:\n"
		}, "init", ""},
		"old init": {func(files map[string]string) {
			modules(files)
			files["bin/init"] = contract.StartupMarker
		}, "", "a root that dm-verity verifies needs an init that sets it up: /sbin/init does not support that: use slipwaybuild/init of this release"},
		"no dm-verity": {func(files map[string]string) {
			modules(files)
			files[dir+"modules.dep"] = "kernel/fs/erofs.ko:\n"
			files[dir+"modules.builtin"] = "kernel/fs/ext4/ext4.ko\n"
		}, "", "the kernel cannot mount EROFS: the module dm_verity is neither built in nor in /usr/lib/modules/6.1: use a kernel.tar with it"},
	} {
		t.Run(name, func(t *testing.T) {
			archive, ok := startup(t, modular(test.change), verityRoot, test.err)
			if !ok {
				return
			}
			var got []string
			for _, file := range archive {
				if file == "init" || strings.HasSuffix(file, ".ko") {
					got = append(got, strings.TrimPrefix(file, "lib/modules/6.1/kernel/"))
				}
			}
			slices.Sort(got)
			if strings.Join(got, " ") != test.want {
				t.Errorf("files %q, want %s", got, test.want)
			}
		})
	}
}

func TestCDCmdline(t *testing.T) {
	for _, test := range []struct{ architecture, cmdline, want string }{
		{"amd64", "", "root=/dev/sr0"},
		{"amd64", "quiet -- root=x ", "quiet -- root=x "},
		{"amd64", `a="b root=c" `, `root=/dev/sr0 a="b root=c" `},
		{"amd64", "root=/dev/vdb ro", "root=/dev/vdb ro"},
		{"arm64", "quiet", "root=/dev/vda quiet"},
	} {
		if got := cdCmdline(test.cmdline, test.architecture); got != test.want {
			t.Errorf("%s, %q: %q, want %q", test.architecture, test.cmdline, got, test.want)
		}
	}
}
