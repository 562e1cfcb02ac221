// Command installer writes a disk image on a disk of the machine, verifies what
// it wrote, and reboots. It is the program of the package installer, an onboot
// container.
//
// Usage:
//
//	installer [-disk DEVICE] [-overwrite] [-sha256 DIGEST] [-then ACTION] IMAGE
//
// IMAGE is a raw disk in a file, or a disk in a registry:
// oci://REGISTRY/REPOSITORY@sha256:DIGEST. The kernel arguments install.image,
// install.disk, install.overwrite, install.sha256 and install.then replace the
// arguments. Without a disk, the program asks on the console.
//
// It never writes to disks that are in use, that hold the medium of an
// installer, or that are too small; and to disks that are not empty only with
// -overwrite, or if the user confirms that.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/slipway-build/slipway/internal/kernel/cmdline"
)

// waitForDisk is how long a disk that is named may take to appear.
const waitForDisk = 10 * time.Second

func main() {
	log.SetFlags(0)
	log.SetPrefix("installer: ")
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	// The init shows what a failed container wrote, and nothing of others.
	console, err := os.OpenFile("/dev/console", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err == nil {
		defer console.Close()
		log.SetOutput(console)
	}
	if err := run(ctx, os.Args[1:], console); err != nil {
		log.SetOutput(os.Stderr)
		log.Fatal(err)
	}
}

// A config is what the user wants.
type config struct {
	image, disk, sha256, then string
	overwrite                 bool
}

// actions are the signals that process 1 of the machine gets afterwards.
var actions = map[string]syscall.Signal{"reboot": syscall.SIGTERM, "poweroff": syscall.SIGUSR2, "nothing": 0}

// parse parses the arguments of the program, and those of the kernel, which
// replace them.
func parse(args []string, kernel []cmdline.Arg) (c config, err error) {
	flags := flag.NewFlagSet("installer", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&c.disk, "disk", "", "")
	flags.BoolVar(&c.overwrite, "overwrite", false, "")
	flags.StringVar(&c.sha256, "sha256", "", "")
	flags.StringVar(&c.then, "then", "reboot", "")
	if err := flags.Parse(args); err != nil {
		return c, err
	}
	if flags.NArg() > 1 {
		return c, fmt.Errorf("%d images are given: name one", flags.NArg())
	}
	c.image = flags.Arg(0)
	for key, value := range map[string]*string{"image": &c.image, "disk": &c.disk, "sha256": &c.sha256, "then": &c.then} {
		if text, found := cmdline.Lookup(kernel, "install."+key); found {
			*value = text
		}
	}
	if text, found := cmdline.Lookup(kernel, "install.overwrite"); found {
		c.overwrite = text != "0" && text != "no"
	}
	if _, known := actions[c.then]; !known {
		return c, fmt.Errorf("install.then=%q: must be reboot, poweroff or nothing", c.then)
	}
	if c.image == "" {
		return c, fmt.Errorf("there is no image: name a file or oci://REGISTRY/REPOSITORY@sha256:DIGEST as argument, or as install.image=")
	}
	return c, nil
}

// run installs an image. The console is nil if there is none.
func run(ctx context.Context, args []string, console *os.File) error {
	kernel, err := cmdline.Read()
	if err != nil {
		return err
	}
	c, err := parse(args, kernel)
	if err != nil {
		return err
	}
	image, err := openImage(ctx, c.image, c.sha256)
	if err != nil {
		return err
	}
	defer image.Close()
	target, err := chooseDisk(c, image, console)
	if err != nil {
		return err
	}
	log.Printf("writing %s, %s, to %s", image.name, size(image.size), target)
	if err := install(target, image); err != nil {
		return err
	}
	log.Printf("%s has %s, sha256:%x, verified", target, image.name, image.written)
	if signal := actions[c.then]; signal != 0 {
		if err := syscall.Kill(1, signal); err != nil {
			return fmt.Errorf("%s: %w", c.then, err)
		}
	}
	return nil
}

// chooseDisk returns the path of the disk to write to.
func chooseDisk(c config, image *image, console *os.File) (string, error) {
	switch {
	case c.disk != "":
		return named(c.disk, image.size, c.overwrite, waitForDisk)
	case console == nil:
		return "", errors.New("there is no console to ask on: name a disk as install.disk=")
	}
	disks, err := candidates(image.size)
	if err != nil {
		return "", err
	}
	return ask(bufio.NewReader(console), console, image, disks)
}

// size returns a number of bytes for people.
func size(bytes int64) string {
	switch {
	case bytes >= 1e12:
		return fmt.Sprintf("%.1f TB", float64(bytes)/1e12)
	case bytes >= 1e9:
		return fmt.Sprintf("%.1f GB", float64(bytes)/1e9)
	}
	return fmt.Sprintf("%.1f MB", float64(bytes)/1e6)
}
