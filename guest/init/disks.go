package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/guest/bundle"
	"github.com/slipway-build/slipway/guest/disklink"
	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/contract/policy"
)

// disks keeps the links in /dev/disk and notices new disks. A disk that hangs
// delays only itself.
type disks struct {
	links *disklink.Keeper
	out   *console
	watch int // inotify; -1: none

	mu      sync.Mutex
	busy    map[string]bool // devices that are being read; true: again after that
	idle    *sync.Cond      // when busy becomes empty
	watched map[int]string  // devices by watch
	present map[string]bool // disks that are attached
	// arrived receives an element when a disk is attached after the boot.
	arrived chan struct{}
}

func newDisks(out *console) (*disks, error) {
	d := &disks{
		links: disklink.New("/"), out: out,
		busy: map[string]bool{}, watched: map[int]string{}, present: map[string]bool{}, arrived: make(chan struct{}, 1),
	}
	d.idle = sync.NewCond(&d.mu)
	// The kernel has no event for a new filesystem. A program that makes one
	// opens the device for writing and closes it.
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if d.watch = fd; err != nil {
		d.watch = -1
		return d, fmt.Errorf("disks: watch for new filesystems: %w", err)
	}
	go d.serveWatch()
	return d, nil
}

// serveWatch waits for devices that have been written to.
func (d *disks) serveWatch() {
	buffer := make([]byte, 4<<10)
	for {
		n, err := unix.Read(d.watch, buffer)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			d.out.say("disks: %v: new filesystems will not be noticed", err)
			return
		}
		for at := 0; at+unix.SizeofInotifyEvent <= n; {
			event := (*unix.InotifyEvent)(unsafe.Pointer(&buffer[at]))
			at += unix.SizeofInotifyEvent + int(event.Len)
			d.mu.Lock()
			name := d.watched[int(event.Wd)]
			if event.Mask&unix.IN_IGNORED != 0 { // the device is gone
				delete(d.watched, int(event.Wd))
			}
			d.mu.Unlock()
			if name != "" {
				d.changed(name)
			}
		}
	}
}

// scan looks at all devices.
func (d *disks) scan() {
	names, err := d.links.Devices()
	if err != nil {
		d.out.say("disks: %v", err)
	}
	for _, name := range names {
		d.changed(name)
	}
}

// changed looks at a device that has appeared, changed or disappeared.
func (d *disks) changed(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.busy[name]; ok {
		d.busy[name] = true
		return
	}
	d.busy[name] = false
	go func() {
		for again := true; again; {
			d.look(name)
			d.mu.Lock()
			if again = d.busy[name]; again {
				d.busy[name] = false
			} else if delete(d.busy, name); len(d.busy) == 0 {
				d.idle.Broadcast()
			}
			d.mu.Unlock()
		}
	}()
}

func (d *disks) look(name string) {
	if d.watch >= 0 {
		if wd, err := unix.InotifyAddWatch(d.watch, filepath.Join("/dev", name), unix.IN_CLOSE_WRITE); err == nil { // else it is gone
			d.mu.Lock()
			d.watched[wd] = name
			d.mu.Unlock()
		}
	}
	if err := d.links.Update(name); err != nil {
		d.out.say("disks: %s: %v", name, err)
	}
	is := isDisk(name)
	d.mu.Lock()
	defer d.mu.Unlock()
	if is && !d.present[name] {
		select {
		case d.arrived <- struct{}{}:
		default: // one is enough
		}
	}
	if d.present[name] = is; !is {
		delete(d.present, name)
	}
}

// isDisk reports whether a block device is a disk with a medium: neither a
// partition nor made by software.
func isDisk(name string) bool {
	dir := filepath.Join("/sys/class/block", name)
	_, err := os.Stat(filepath.Join(dir, "device"))
	_, partition := os.Stat(filepath.Join(dir, "partition"))
	size, _ := os.ReadFile(filepath.Join(dir, "size"))
	return err == nil && partition != nil && string(size) != "0\n"
}

// settle waits until all devices have been looked at, but not for one that
// hangs.
func (d *disks) settle(timeout time.Duration) {
	expired := false
	timer := time.AfterFunc(timeout, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		expired = true
		d.idle.Broadcast()
	})
	defer timer.Stop()
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.busy) > 0 && !expired {
		d.idle.Wait()
	}
}

// hotplugDelay is how long to wait after a disk is attached, for its partitions
// and for further disks.
const hotplugDelay = time.Second

// runOnboot runs the onboot containers. From then on it runs those that are
// marked for it again for each new disk.
func (m *machine) runOnboot(ctx context.Context) error {
	if m.disks != nil {
		select { // those that exist now are no news
		case <-m.disks.arrived:
		default:
		}
	}
	err := m.runAll(ctx, contract.Onboot)
	if m.disks != nil {
		go m.runHotplug(ctx)
	}
	return err
}

func (m *machine) runHotplug(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.disks.arrived:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(hotplugDelay):
		}
		dirs, err := bundle.List("/" + contract.Bundles(contract.Onboot))
		m.report(err)
		for _, dir := range dirs {
			b, err := bundle.Open(dir)
			if err != nil || ctx.Err() != nil {
				continue // the boot has reported the error
			}
			if p := m.policy(b, contract.Onboot); p.Hotplug == policy.Disk {
				m.runOnce(ctx, contract.Onboot, b, p) // prints its error
			}
		}
	}
}
