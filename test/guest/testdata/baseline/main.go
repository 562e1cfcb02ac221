// Command move is the first program of the baseline, as in LinuxKit: it moves
// the root filesystem to a tmpfs and starts the script baseline there. It
// copies and removes one file after another, so that only one file uses memory
// twice.
package main

import (
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"syscall"
)

const newRoot = "/mnt"

func main() {
	check(syscall.Mount("tmpfs", newRoot, "tmpfs", 0, "size=90%"))
	check(filepath.WalkDir("/", move))
	check(os.Chdir(newRoot))
	check(syscall.Mount(".", "/", "", syscall.MS_MOVE, ""))
	check(syscall.Chroot("."))
	check(os.Chdir("/"))
	check(syscall.Exec("/baseline", []string{"baseline"}, nil))
}

func move(path string, d fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	to := newRoot + path
	switch {
	case path == "/":
		return nil
	case path == newRoot:
		check(os.Mkdir(to, 0o755))
		return fs.SkipDir
	}
	info, err := d.Info()
	check(err)
	stat := info.Sys().(*syscall.Stat_t)
	switch d.Type() {
	case 0:
		copyFile(path, to)
	case fs.ModeDir:
		check(os.Mkdir(to, 0o755))
	case fs.ModeSymlink:
		target, err := os.Readlink(path)
		check(err)
		check(os.Symlink(target, to))
	default:
		check(syscall.Mknod(to, stat.Mode, int(stat.Rdev)))
	}
	check(os.Lchown(to, int(stat.Uid), int(stat.Gid)))
	if d.Type() != fs.ModeSymlink {
		check(syscall.Chmod(to, stat.Mode&0o7777))
	}
	if d.Type() != fs.ModeDir {
		check(os.Remove(path))
	}
	return nil
}

func copyFile(path, to string) {
	from, err := os.Open(path)
	check(err)
	defer from.Close()
	out, err := os.Create(to)
	check(err)
	defer out.Close()
	_, err = io.Copy(out, from)
	check(err)
}

func check(err error) {
	if err != nil {
		log.Fatal("move: ", err)
	}
}
