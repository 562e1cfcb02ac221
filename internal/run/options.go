package run

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"golang.org/x/crypto/ssh"

	"github.com/slipway-build/slipway/internal/vm"
)

// ParseForward parses [ADDRESS:]PORT:GUESTPORT[/udp] as docker run --publish
// does. The default address is 127.0.0.1.
func ParseForward(text string) (vm.Forward, error) {
	f := vm.Forward{Address: "127.0.0.1"}
	ports, protocol, _ := strings.Cut(text, "/")
	switch protocol {
	case "", "tcp":
	case "udp":
		f.UDP = true
	default:
		return f, fmt.Errorf("%q: the protocol must be tcp or udp", text)
	}
	host, guest, ok := cutLast(ports, ":")
	if address, port, both := cutLast(host, ":"); both {
		ip, err := netip.ParseAddr(address)
		if err != nil || !ip.Is4() {
			return f, fmt.Errorf("%q: the address must be an IPv4 address", text)
		}
		f.Address, host = address, port
	}
	var errs [2]error
	f.Port, errs[0] = parsePort(host)
	f.GuestPort, errs[1] = parsePort(guest)
	if !ok || errors.Join(errs[:]...) != nil {
		return f, fmt.Errorf("%q: write it as PORT:GUESTPORT, for example 8080:80", text)
	}
	return f, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

func parsePort(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err == nil && (n < 1 || n > 65535) {
		err = errors.New("not a port")
	}
	return n, err
}

// CheckFree reports which of the ports of the host another program has.
func CheckFree(forwards []vm.Forward) error {
	for _, f := range forwards {
		address := net.JoinHostPort(f.Address, strconv.Itoa(f.Port))
		var err error
		if f.UDP {
			var conn net.PacketConn
			if conn, err = net.ListenPacket("udp4", address); err == nil {
				conn.Close()
			}
		} else {
			var listener net.Listener
			if listener, err = net.Listen("tcp4", address); err == nil {
				listener.Close()
			}
		}
		if err != nil {
			var op *net.OpError
			if errors.As(err, &op) {
				err = op.Err
			}
			return fmt.Errorf("cannot publish at %s: %w; choose another port, for example --publish %d:%d", address, err, f.Port%64000+1000, f.GuestPort)
		}
	}
	return nil
}

// A Disk is an additional disk that a user asks for.
type Disk struct {
	Size int64 // bytes
	Name string
}

// ParseDisk parses SIZE[:NAME].
func ParseDisk(text string) (Disk, error) {
	size, name, named := strings.Cut(text, ":")
	n, err := units.RAMInBytes(size)
	if err != nil || n < 1<<20 {
		return Disk{}, fmt.Errorf("%q: write it as SIZE[:NAME] with at least 1M, for example 10G:data", text)
	}
	if named {
		if err := checkName(name); err != nil {
			return Disk{}, err
		}
		if len(name) > maxSerial {
			return Disk{}, fmt.Errorf("%q: the name of a disk has at most %d characters", name, maxSerial)
		}
	}
	return Disk{n, name}, nil
}

// maxSerial is the longest serial number of a virtio disk.
const maxSerial = 20

// Create creates the disk in a directory, or grows the one that is there. Disks
// without a name are numbered.
func (d Disk) Create(dir string, number int) (vm.Drive, error) {
	name := d.Name
	if name == "" {
		name = fmt.Sprintf("disk%d", number)
	}
	drive := vm.Drive{File: filepath.Join(dir, name+".raw"), Serial: name}
	f, err := os.OpenFile(drive.File, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return drive, fmt.Errorf("disk %s: %w", name, err)
	}
	info, err := f.Stat()
	if err == nil && info.Size() > d.Size {
		err = fmt.Errorf("%s has %s and cannot shrink: ask for that size, or remove it", drive.File, units.BytesSize(float64(info.Size())))
	} else if err == nil {
		err = f.Truncate(d.Size)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return drive, fmt.Errorf("disk %s: %w", name, err)
	}
	return drive, nil
}

// ReadPublicKeys returns the lines of an authorized_keys file, of a public key,
// or of the public key that belongs to a private one.
func ReadPublicKeys(path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--ssh-key: %w", err)
	}
	if strings.Contains(string(data), "PRIVATE KEY-----") {
		path += ".pub"
		if data, err = os.ReadFile(path); err != nil {
			return nil, fmt.Errorf("--ssh-key: the public key: %w", err)
		}
	}
	var keys []string
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if _, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line)); err != nil {
			return nil, fmt.Errorf("--ssh-key %s: %w: name the .pub file of a key pair", path, err)
		}
		keys = append(keys, line)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("--ssh-key %s: has no public key", path)
	}
	return keys, nil
}
