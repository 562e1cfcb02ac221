package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/guest/blkid"
	"github.com/slipway-build/slipway/guest/blockdev"
)

const architecture = runtime.GOARCH

// A disk is a disk of the machine.
type disk struct {
	path, model string // printable
	size        int64  // bytes
	content     string // for people; "" if the disk is empty
	unfit       error  // why the image cannot be written to it
}

// candidates returns the disks of the machine.
func candidates(need int64) ([]disk, error) {
	paths, err := blockdev.Physical()
	if err != nil {
		return nil, err
	}
	var disks []disk
	for _, path := range paths {
		disks = append(disks, inspect(path, need))
	}
	return disks, nil
}

// inspect finds out whether an image of need bytes can be written to a disk.
func inspect(path string, need int64) disk {
	d := disk{path: path}
	if text, err := os.ReadFile(filepath.Join(blockdev.Sys, filepath.Base(path), "device", "model")); err == nil {
		d.model = printable(string(text))
	}
	// Exclusively: fails if the disk or a partition of it is in use.
	f, err := blockdev.Open(path, os.O_RDWR|unix.O_EXCL)
	if errors.Is(err, unix.EBUSY) {
		err = errors.New("it is in use")
	}
	if err != nil {
		d.unfit = err
		return d
	}
	defer f.Close()
	d.unfit = d.read(f, need)
	return d
}

// read reads size and content of a disk. It returns why the image cannot be
// written to it.
func (d *disk) read(f *os.File, need int64) (err error) {
	if d.size, err = f.Seek(0, io.SeekEnd); err != nil {
		return err
	}
	empty, err := blockdev.IsEmpty(f)
	if err != nil {
		return err
	}
	if !empty {
		d.content = "partitions or unknown data"
		if content, err := blkid.Probe(f); err == nil {
			d.content = printable(content.String())
		}
		if isISO(f) {
			return errors.New("it holds an ISO, which may be the one that the machine booted from")
		}
	}
	if d.size < need {
		return fmt.Errorf("it is too small: it has %d bytes, and the image %d", d.size, need)
	}
	return nil
}

// isISO reports whether a disk has the volume descriptors of an ISO (ECMA-119,
// section 8), whatever else it has.
func isISO(r io.ReaderAt) bool {
	id := make([]byte, 5)
	_, err := r.ReadAt(id, 16*2048+1)
	return err == nil && string(id) == "CD001"
}

func (d disk) String() string {
	text := fmt.Sprintf("%s, %s", d.path, size(d.size))
	if d.model != "" {
		text += ", " + d.model
	}
	switch {
	case d.unfit != nil:
		return fmt.Sprintf("%s: %v", text, d.unfit)
	case d.content != "":
		return text + ": holds " + d.content
	}
	return text + ": empty"
}

// printable returns text without what could control a terminal.
func printable(text string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, text))
}

// named returns the path of a disk that the user named, if the image can be
// written to it.
func named(name string, need int64, overwrite bool, wait time.Duration) (string, error) {
	var path string
	for deadline := time.Now().Add(wait); ; time.Sleep(100 * time.Millisecond) {
		var err error
		if path, err = filepath.EvalSymlinks(name); err == nil {
			break
		}
		if time.Now().After(deadline) {
			return "", fmt.Errorf("install.disk=%q: %w", name, err)
		}
	}
	if !blockdev.IsPhysical(filepath.Base(path)) {
		return "", fmt.Errorf("install.disk=%q: %s is not a whole disk", name, path)
	}
	d := inspect(path, need)
	switch {
	case d.unfit != nil:
		return "", fmt.Errorf("install.disk=%q: %v: nothing was written", name, d)
	case d.content != "" && !overwrite:
		return "", fmt.Errorf("install.disk=%q: %v: nothing was written; add install.overwrite to the kernel command line to replace that", name, d)
	}
	return path, nil
}

// ask lets the user choose a disk.
func ask(in *bufio.Reader, out io.Writer, image *image, disks []disk) (string, error) {
	var fit []disk
	fmt.Fprintf(out, "\nInstall %s, %s\n\n", image.name, size(image.size))
	for _, d := range disks {
		number := "-"
		if d.unfit == nil {
			fit = append(fit, d)
			number = strconv.Itoa(len(fit))
		}
		fmt.Fprintf(out, "  %s  %v\n", number, d)
	}
	if len(fit) == 0 {
		return "", errors.New("no disk of the machine can take the image")
	}
	line := func(question string) (string, error) {
		fmt.Fprint(out, question)
		text, err := in.ReadString('\n')
		return strings.TrimSpace(text), err
	}
	for {
		text, err := line(fmt.Sprintf("\nNumber of the disk (1 to %d): ", len(fit)))
		if err != nil {
			return "", err
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > len(fit) {
			continue
		}
		d := fit[n-1]
		if d.content == "" {
			return d.path, nil
		}
		if text, err = line(fmt.Sprintf("%s holds %s, which will be lost. Type %[1]s to continue: ", d.path, d.content)); err != nil {
			return "", err
		}
		if text == d.path {
			return d.path, nil
		}
	}
}
