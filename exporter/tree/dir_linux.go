package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ReadDir reads the tree below the directory root, sorted by path, with owners,
// modes, devices, hard links and extended attributes. The first entry is the root
// itself. ReadDir does not follow symbolic links. Writers open the contents later,
// so the files must not change until then.
func ReadDir(root string) ([]Entry, error) {
	var entries []Entry
	inodes := inodeTable{}
	var spent budget
	err := filepath.WalkDir(root, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		e, err := stat(name, rel, inodes)
		if err != nil {
			return err
		}
		entries = append(entries, e)
		return spent.spend(e.metadata())
	})
	if err != nil {
		return nil, fmt.Errorf("read tree: %w", err)
	}
	Sort(entries)
	return entries, nil
}

// inodeTable has numbers for files with several links, by device and inode.
type inodeTable map[[2]uint64]uint64

func (t inodeTable) number(dev, ino uint64) uint64 {
	key := [2]uint64{dev, ino}
	if _, ok := t[key]; !ok {
		t[key] = uint64(len(t) + 1)
	}
	return t[key]
}

func stat(name, rel string, inodes inodeTable) (Entry, error) {
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		return Entry{}, &fs.PathError{Op: "lstat", Path: name, Err: err}
	}
	e := Entry{
		Path: filepath.ToSlash(rel),
		Mode: st.Mode & ModeMask,
		UID:  st.Uid,
		GID:  st.Gid,
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		e.Type = File
		e.Size = st.Size
		if e.Size > 0 {
			e.Open = func() (Content, error) { return os.Open(name) }
		}
	case unix.S_IFDIR:
		e.Type = Dir
	case unix.S_IFLNK:
		e.Type = Symlink
		target, err := os.Readlink(name)
		if err != nil {
			return Entry{}, err
		}
		e.Link = target
	case unix.S_IFCHR:
		e.Type = Char
	case unix.S_IFBLK:
		e.Type = Block
	case unix.S_IFIFO:
		e.Type = FIFO
	default:
		return Entry{}, fmt.Errorf("%s is a socket, which no archive can store: remove it from the image", rel)
	}
	if e.Type == Char || e.Type == Block {
		e.Major, e.Minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	}
	if e.Type != Dir && st.Nlink > 1 {
		e.Inode = inodes.number(st.Dev, st.Ino)
	}
	var err error
	e.Xattrs, err = xattrs(name)
	return e, err
}

// hostLabel is the SELinux label of the file on the host, which is not part of an
// image.
const hostLabel = "security.selinux"

// xattrs returns the extended attributes of a file. It does not follow symbolic
// links.
func xattrs(name string) (map[string]string, error) {
	list, err := readXattr(func(buf []byte) (int, error) { return unix.Llistxattr(name, buf) })
	if errors.Is(err, unix.ENOTSUP) || len(list) == 0 && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "llistxattr", Path: name, Err: err}
	}
	attrs := map[string]string{}
	for _, attr := range strings.Split(strings.TrimSuffix(list, "\x00"), "\x00") {
		if attr == hostLabel {
			continue
		}
		value, err := readXattr(func(buf []byte) (int, error) { return unix.Lgetxattr(name, attr, buf) })
		if err != nil {
			return nil, &fs.PathError{Op: "lgetxattr " + attr, Path: name, Err: err}
		}
		attrs[attr] = value
	}
	if len(attrs) == 0 {
		return nil, nil
	}
	return attrs, nil
}

// readXattr calls get for the length, then for the data.
func readXattr(get func([]byte) (int, error)) (string, error) {
	n, err := get(nil)
	if err != nil || n == 0 {
		return "", err
	}
	buf := make([]byte, n)
	n, err = get(buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}
