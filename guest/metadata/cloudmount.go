package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/guest/blkid"
)

// A cloudMount is a disk to mount below /var.
type cloudMount struct {
	source string // path of a device, LABEL=…, UUID=… or PARTUUID=…
	path   string // below /var
	kind   string // of the filesystem; "": whatever it is
	flags  uintptr
	data   string // options of the filesystem
	nofail bool   // whether the disk may be missing
}

// mountOptions are the options of fstab(5) that are flags of mount(2). A leading
// "no", and its opposite, clear or set the same flag.
var mountOptions = map[string]struct{ set, clear uintptr }{
	"defaults": {}, "auto": {}, "async": {clear: unix.MS_SYNCHRONOUS}, "sync": {set: unix.MS_SYNCHRONOUS},
	"ro": {set: unix.MS_RDONLY}, "rw": {clear: unix.MS_RDONLY},
	"noatime": {set: unix.MS_NOATIME}, "atime": {clear: unix.MS_NOATIME}, "relatime": {set: unix.MS_RELATIME},
	"nodiratime": {set: unix.MS_NODIRATIME}, "lazytime": {set: unix.MS_LAZYTIME}, "strictatime": {set: unix.MS_STRICTATIME},
	"nodev": {set: unix.MS_NODEV}, "dev": {clear: unix.MS_NODEV},
	"noexec": {set: unix.MS_NOEXEC}, "exec": {clear: unix.MS_NOEXEC},
	"nosuid": {set: unix.MS_NOSUID}, "suid": {clear: unix.MS_NOSUID},
}

// mounts parses mounts: lists of the six fields of fstab(5).
func (p *cloudParser) mounts(n *yaml.Node, at string) {
	p.list(at, n, func(n *yaml.Node, at string) {
		var fields []string
		p.list(at, n, func(n *yaml.Node, at string) {
			if isNull(n) {
				fields = append(fields, "")
				return
			}
			fields = append(fields, p.text(n, at))
		})
		m, err := newCloudMount(fields)
		if err != nil {
			p.fail(n, at, "%v", err)
			return
		}
		p.config.mounts = append(p.config.mounts, m)
	})
}

func newCloudMount(fields []string) (cloudMount, error) {
	if len(fields) < 2 || len(fields) > 6 {
		return cloudMount{}, errors.New("must be a list of a device, a directory, and optionally type and options")
	}
	fields = append(fields, "", "")
	m := cloudMount{source: fields[0], flags: unix.MS_RELATIME, nofail: fields[3] == ""}
	if m.kind = fields[2]; m.kind == "auto" {
		m.kind = ""
	}
	switch {
	case m.kind == "swap" || fields[1] == "swap":
		return m, errors.New("swap is not supported: use the package swap")
	case !strings.Contains(m.source, "=") && !strings.HasPrefix(m.source, "/"):
		m.source = "/dev/" + m.source // as cloud-init does
	}
	if err := m.check(); err != nil {
		return m, err
	}
	where, below, err := areaOf(fields[1])
	if err != nil || where != variableArea {
		return m, fmt.Errorf("mount point %q: must be below /var", fields[1])
	}
	m.path = below
	if fields[3] == "" { // the default of cloud-init
		fields[3] = "defaults,nofail"
	}
	var data []string
	for option := range strings.SplitSeq(fields[3], ",") {
		known, ok := mountOptions[option]
		switch {
		case ok:
			m.flags = m.flags&^known.clear | known.set
		case option == "nofail":
			m.nofail = true
		case option == "discard":
			data = append(data, option)
		case option == "_netdev" || strings.HasPrefix(option, "x-") || strings.HasPrefix(option, "comment="): // for other programs
		default:
			return m, fmt.Errorf("mount option %q is not supported", option)
		}
	}
	m.data = strings.Join(data, ",")
	return m, nil
}

// check returns an error for a source that no disk can have.
func (m cloudMount) check() error {
	kind, name, tagged := strings.Cut(m.source, "=")
	switch {
	case tagged && (kind == "LABEL" || kind == "UUID") && name != "":
		return nil
	case tagged && kind == "PARTUUID" && filepath.IsLocal(name) && !strings.Contains(name, "/"):
		return nil
	case strings.HasPrefix(path.Clean(m.source), "/dev/"):
		return nil
	}
	return fmt.Errorf("device %q: must be below /dev, LABEL=…, UUID=… or PARTUUID=…", m.source)
}

// find returns the device and what it holds. The error is fs.ErrNotExist if the
// machine does not have it.
func (m cloudMount) find() (device string, content blkid.Content, err error) {
	kind, name, _ := strings.Cut(m.source, "=")
	switch kind {
	case "LABEL", "UUID":
		devices, _ := filepath.Glob("/sys/class/block/*") // the pattern is valid
		for _, entry := range devices {
			device := filepath.Join("/dev", filepath.Base(entry))
			content, err := blkid.Identify(device)
			if err == nil && (kind == "LABEL" && content.Label == name || kind == "UUID" && strings.EqualFold(content.UUID, name)) {
				return device, content, nil
			}
		}
		return "", content, fs.ErrNotExist
	case "PARTUUID":
		device = filepath.Join("/dev/disk/by-partuuid", strings.ToLower(name))
	default:
		device = path.Clean(m.source)
	}
	content, err = blkid.Identify(device)
	return device, content, err
}

// mountTimeout is how long to wait for a disk.
const mountTimeout = 10 * time.Second

// mountIn mounts the disk below a directory, which is /var of the machine. Links
// below it must not lead elsewhere.
func (m cloudMount) mountIn(variable string) error {
	device, found, err := m.find()
	for deadline := time.Now().Add(mountTimeout); errors.Is(err, fs.ErrNotExist) && time.Now().Before(deadline); {
		time.Sleep(100 * time.Millisecond)
		device, found, err = m.find()
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && m.nofail:
		log.Printf("mount %s: not on this machine, skipped", m.source)
		return nil
	case err != nil:
		return fmt.Errorf("mount %s: %w", m.source, err)
	case !found.Mountable() || m.kind != "" && m.kind != found.Type:
		return fmt.Errorf("mount %s: it holds %v", m.source, found)
	}
	root, err := os.OpenRoot(variable)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.MkdirAll(m.path, 0o755); err != nil {
		return err
	}
	dir, err := root.Open(m.path)
	if err != nil {
		return err
	}
	defer dir.Close()
	// The file in /proc is the directory itself, whatever its path is by now.
	if err := unix.Mount(device, fmt.Sprintf("/proc/self/fd/%d", dir.Fd()), found.Type, m.flags, m.data); err != nil {
		return fmt.Errorf("mount %s (%v) on %s: %w", m.source, found, filepath.Join("/var", m.path), err)
	}
	log.Printf("mounted %s (%v) on %s", m.source, found, filepath.Join("/var", m.path))
	return nil
}
