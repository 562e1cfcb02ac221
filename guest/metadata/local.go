package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v4"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/guest/blkid"
)

// errAbsent is the error of a source that this machine does not have.
var errAbsent = errors.New("not on this machine")

// cmdlineArgument is the kernel argument with user data in base64, for machines
// without another source.
const cmdlineArgument = "metadata.userdata"

func fetchCmdline(_ context.Context, _ *client, root string) (*instance, error) {
	text, ok := readPlatform(root).argument(cmdlineArgument)
	if !ok {
		return nil, errAbsent
	}
	found := newInstance()
	var err error
	if found.userData, err = decodeBase64(text); err != nil {
		return nil, fmt.Errorf("kernel argument %s: %w", cmdlineArgument, err)
	}
	return found, nil
}

// fetchFile returns the content of a file as user data.
func fetchFile(_ context.Context, _ *client, name string) (*instance, error) {
	found := newInstance()
	var err error
	found.userData, err = os.ReadFile(name)
	return found, err
}

// Labels of filesystems with data for the machine: NoCloud of cloud-init, and
// the configuration drive of OpenStack.
// https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html
// https://docs.openstack.org/nova/latest/admin/config-drive.html
const (
	noCloudLabel     = "cidata"
	configDriveLabel = "config-2"
)

// maxFile is the largest file that is read from a medium, in bytes.
const maxFile = 16 << 20

// fetchMedia looks for user data on disks with one of these labels, and on CDs
// with any label.
func fetchMedia(_ context.Context, _ *client, root string) (*instance, error) {
	devices, _ := filepath.Glob(filepath.Join(root, "sys/class/block/*")) // sorted; the pattern is valid
	for _, device := range devices {
		name := filepath.Base(device)
		volume, err := blkid.Identify(filepath.Join(root, "dev", name))
		if err != nil || volume.Type != "iso9660" && volume.Type != "vfat" {
			continue // no medium, or no such filesystem
		}
		volume.Label = strings.ToLower(volume.Label)
		if volume.Label != noCloudLabel && volume.Label != configDriveLabel && !strings.HasPrefix(name, "sr") {
			continue
		}
		found, err := readVolume(filepath.Join(root, "dev", name), volume)
		if errors.Is(err, errAbsent) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("/dev/%s: %w", name, err)
		}
		return found, nil
	}
	return nil, errAbsent
}

func readVolume(device string, v blkid.Content) (found *instance, err error) {
	dir, err := os.MkdirTemp("", "metadata")
	if err != nil {
		return nil, err
	}
	defer os.Remove(dir)
	if err := unix.Mount(device, dir, v.Type, unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC, ""); err != nil {
		return nil, fmt.Errorf("mount as %s: %w (the container needs CAP_SYS_ADMIN, and the kernel the module of the filesystem)", v.Type, err)
	}
	defer func() { err = errors.Join(err, unix.Unmount(dir, unix.MNT_DETACH)) }()
	return readRoot(dir, v.Label)
}

// readRoot reads the medium that is mounted on dir. Symbolic links on it must not
// lead to the files of the machine.
func readRoot(dir, label string) (*instance, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return readMedium(root.FS(), label)
}

// readMedium returns the instance that a filesystem describes. On a CD of
// LinuxKit, user data is the file config.
func readMedium(medium fs.FS, label string) (*instance, error) {
	read := func(name string) ([]byte, bool, error) {
		info, err := fs.Stat(medium, name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, false, nil
		}
		if err != nil {
			return nil, false, err
		}
		if !info.Mode().IsRegular() || info.Size() > maxFile {
			return nil, false, fmt.Errorf("%s: not a regular file of at most %d bytes", name, maxFile)
		}
		text, err := fs.ReadFile(medium, name)
		return text, err == nil, err
	}
	if label == configDriveLabel {
		return openStack(func(name string) ([]byte, bool, error) { return read("openstack/latest/" + name) })
	}
	found := newInstance()
	for _, name := range []string{"user-data", "config"} {
		text, ok, err := read(name)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		found.userData = text
		meta, _, err := read("meta-data")
		if err != nil {
			return nil, err
		}
		found.addMetaData(meta)
		network, ok, err := read("network-config")
		if ok {
			found.set("network-config", string(network))
			found.network, found.networkErr = parseNetworkConfig(network)
		}
		return found, err
	}
	return nil, errAbsent
}

// addMetaData stores the meta-data of cloud-init as a file and parses it. On
// VMware it may contain the network configuration, encoded or not.
func (in *instance) addMetaData(text []byte) {
	in.set("metadata", string(text))
	var meta struct {
		InstanceID    string    `yaml:"instance-id"`
		LocalHostname string    `yaml:"local-hostname"`
		PublicKeys    yaml.Node `yaml:"public-keys"`
		Network       yaml.Node
		Encoding      string `yaml:"network.encoding"`
	}
	if err := yaml.Unmarshal(text, &meta); err != nil {
		log.Printf("meta-data: %v: written only to the file metadata", err)
		return
	}
	in.set("instance_id", meta.InstanceID)
	in.set("hostname", meta.LocalHostname)
	in.addPublicKeys(&meta.PublicKeys)
	switch meta.Network.Kind {
	case yaml.MappingNode:
		var config networkConfig
		if in.networkErr = meta.Network.Decode(&config); in.networkErr == nil {
			in.network, in.networkErr = config.links()
		}
	case yaml.ScalarNode:
		decoded, err := decodeGuestInfo(meta.Network.Value, meta.Encoding)
		if in.networkErr = err; err == nil {
			in.network, in.networkErr = parseNetworkConfig(decoded)
		}
	}
}

// addPublicKeys adds the keys of meta-data: a string, a list, or a map of names
// to keys, as cloud-init accepts them.
func (in *instance) addPublicKeys(node *yaml.Node) {
	if node.Kind == yaml.ScalarNode && node.Tag != "!!null" {
		in.addKeys(node.Value)
	}
	for i, child := range node.Content {
		if node.Kind == yaml.SequenceNode || i%2 == 1 {
			in.addPublicKeys(child)
		}
	}
}

// guestInfo returns a guestinfo variable of VMware, or "" if it is not set.
type guestInfo func(key string) (string, error)

// fetchGuestInfo reads the variables of
// https://cloudinit.readthedocs.io/en/latest/reference/datasources/vmware.html
func fetchGuestInfo(get guestInfo) (*instance, error) {
	found, budget := newInstance(), newBudget()
	for _, key := range []string{"metadata", "userdata", "vendordata"} {
		text, err := get("guestinfo." + key)
		if err != nil {
			return nil, err
		}
		encoding, err := get("guestinfo." + key + ".encoding")
		if err != nil {
			return nil, err
		}
		value, err := decodeGuestInfo(text, encoding)
		if err = errors.Join(err, budget.spend(len(value))); err != nil {
			return nil, fmt.Errorf("guestinfo.%s: %w", key, err)
		}
		switch key {
		case "metadata":
			found.addMetaData(value)
		case "userdata":
			found.userData = value
		default:
			found.set(key, string(value))
		}
	}
	if len(found.values) == 0 && len(found.userData) == 0 {
		return nil, errAbsent
	}
	return found, nil
}

func decodeGuestInfo(text, encoding string) ([]byte, error) {
	switch strings.TrimSpace(encoding) {
	case "":
		if text = strings.TrimSpace(text); text == "---" { // VMware's value for a removed variable
			text = ""
		}
		return []byte(text), nil
	case "base64", "b64":
		return decodeBase64(text)
	case "gzip+base64", "gz+b64":
		packed, err := decodeBase64(text)
		if err != nil {
			return nil, err
		}
		return gunzip(packed)
	}
	return nil, fmt.Errorf("unknown encoding %q: must be base64 or gzip+base64", encoding)
}
