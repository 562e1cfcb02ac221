package main

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/guest/blkid"
	"github.com/slipway-build/slipway/internal/kernel/mountinfo"
)

// swapDevice is the name of encrypted swap in /dev/mapper.
const swapDevice = "swapfile"

// swapCommand makes a swap file, unless it exists, and enables it.
func swapCommand(flags *flag.FlagSet, args []string) error {
	var conditions []condition
	path := flags.String("path", "", "`FILE` below /var, on a disk")
	sizeText := flags.String("size", "", "`SIZE` of the file: bytes, or a number with the suffix K, M or G")
	encrypt := flags.Bool("encrypt", false, "encrypt with a key that is new at each boot")
	flags.Bool("debug", false, "has no effect")
	flags.Func("condition", "enable swap only if `CONDITION` is met: "+conditionForms+"; with true, fail otherwise", func(text string) error {
		c, err := parseCondition(text)
		conditions = append(conditions, c)
		return err
	})
	if _, err := parse(flags, args, "", 0, 0); err != nil {
		return err
	}
	if !strings.HasPrefix(filepath.Clean(*path), "/var/") {
		return fmt.Errorf("--path %q: must be a file below /var", *path)
	}
	size, err := parseSize(*sizeText)
	if err != nil {
		return fmt.Errorf("--size: %w", err)
	}
	for _, c := range conditions {
		unmet, err := c.unmet()
		if err != nil {
			return err
		}
		if unmet != "" && c.required {
			return errors.New(unmet)
		}
		if unmet != "" {
			log.Printf("%s: swap not enabled", unmet)
			return nil
		}
	}
	if info, err := os.Stat(*path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	} else if err != nil || info.Size() != size {
		if err := allocate(*path, size); err != nil {
			return err
		}
	}
	device := *path
	if *encrypt {
		if device, err = encryptSwap(*path); err != nil {
			return err
		}
	}
	if err := makeSwap(device); err != nil {
		return err
	}
	if err := swapOn(device); err != nil {
		return fmt.Errorf("enable swap on %s: %w", device, err)
	}
	log.Printf("enabled %d MiB on %s", size>>20, device)
	return nil
}

// encryptSwap makes a device from a file. Its content cannot be read after the
// machine has stopped.
func encryptSwap(path string) (string, error) {
	c, err := openControl("/dev/loop-control")
	if err != nil {
		return "", err
	}
	defer c.Close()
	number, err := unix.IoctlRetInt(int(c.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return "", fmt.Errorf("find a free loop device: %w", err)
	}
	if err := attach(path, number); err != nil {
		return "", err
	}
	key := make([]byte, 64)
	rand.Read(key)
	if err := mapEncrypted(swapDevice, "/dev/loop"+strconv.Itoa(number), "aes-xts-plain64", key); err != nil {
		return "", err
	}
	return filepath.Join(mapper, swapDevice), nil
}

// makeSwap writes the header of swap, union swap_header in include/linux/swap.h
// of Linux, unless it exists.
func makeSwap(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if content, err := blkid.Probe(f); err == nil && content.Type == "swap" {
		return nil
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	page := os.Getpagesize()
	pages := min(size/int64(page), math.MaxUint32)
	const minPages = 10 // of the kernel
	if pages < minPages {
		return fmt.Errorf("%s: too small for swap: %d bytes", path, size)
	}
	header := make([]byte, page)
	binary.NativeEndian.PutUint32(header[1024:], 1) // version
	binary.NativeEndian.PutUint32(header[1028:], uint32(pages-1))
	rand.Read(header[1036:1052]) // UUID
	copy(header[page-10:], "SWAPSPACE2")
	if _, err := f.WriteAt(header, 0); err != nil {
		return err
	}
	return f.Sync()
}

func swapOn(path string) error {
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_SWAPON, uintptr(unsafe.Pointer(name)), 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// A condition must be met for swap to be enabled.
type condition struct {
	path     string
	minSize  int64 // bytes of the filesystem at path; 0: path must be a mount point
	required bool  // whether it is an error if the condition is not met
}

const conditionForms = "part:MOUNTPOINT[:true] or partsize:PATH:SIZE[:true]"

func parseCondition(text string) (c condition, err error) {
	words := strings.Split(text, ":")
	switch {
	case words[0] == "part" && len(words) >= 2:
		words = words[1:]
	case words[0] == "partsize" && len(words) >= 3:
		if c.minSize, err = parseSize(words[2]); err != nil {
			return c, err
		}
		words = append(words[1:2], words[3:]...)
	default:
		return c, errors.New("must be " + conditionForms)
	}
	c.path = words[0]
	if len(words) > 1 {
		c.required = words[1] == "true"
	}
	return c, nil
}

// unmet returns why the condition is not met, or "" if it is.
func (c condition) unmet() (string, error) {
	if c.minSize == 0 {
		mounts, err := mountinfo.Read()
		if err != nil || slices.ContainsFunc(mounts, func(m mountinfo.Mount) bool { return m.Path == filepath.Clean(c.path) }) {
			return "", err
		}
		return c.path + " is not a mount point", nil
	}
	var stat unix.Statfs_t
	if err := unix.Statfs(c.path, &stat); err != nil {
		return fmt.Sprintf("%s: %v", c.path, err), nil
	}
	if size := int64(stat.Blocks) * stat.Bsize; size < c.minSize {
		return fmt.Sprintf("%s has %d MiB, less than %d MiB", c.path, size>>20, c.minSize>>20), nil
	}
	return "", nil
}

// parseSize parses a size: bytes, or KiB, MiB or GiB with a suffix, for example
// 2G.
func parseSize(text string) (int64, error) {
	digits, unit := text, int64(1)
	for suffix, size := range map[string]int64{"K": 1 << 10, "M": 1 << 20, "G": 1 << 30} {
		if n, ok := strings.CutSuffix(text, suffix); ok {
			digits, unit = n, size
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n <= 0 || n > math.MaxInt64/unit {
		return 0, fmt.Errorf("%q: must be bytes, or a number with the suffix K, M or G", text)
	}
	return n * unit, nil
}
