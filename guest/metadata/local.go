package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v4"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/guest/blkid"
	"github.com/slipway-build/slipway/internal/contract/reserve"
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

// fetchReserve returns the user data that slipway customize writes into an image.
func fetchReserve(_ context.Context, _ *client, root string) (*instance, error) {
	data, err := readReserve(root)
	if err == nil && data == nil {
		err = errAbsent
	}
	found := newInstance()
	found.userData = data
	return found, err
}

// readReserve returns the data in the file that the build of the image reserves,
// nil if there is none, or no file. The container has /etc of the machine in
// /hostroot.
func readReserve(root string) ([]byte, error) {
	file, ok, err := readFile(os.DirFS(filepath.Join(root, "hostroot")), reserve.Path, newBudget())
	if err != nil || !ok {
		return nil, err
	}
	return reserve.Decode(file)
}

// fetchFile returns the content of a file as user data.
func fetchFile(_ context.Context, _ *client, name string) (*instance, error) {
	text, ok, err := readFile(os.DirFS(filepath.Dir(name)), filepath.Base(name), newBudget())
	if err == nil && !ok {
		err = fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	found := newInstance()
	found.userData = text
	return found, err
}

// readFile returns the content of a regular file, within a budget, and false if
// there is no file.
func readFile(files fs.FS, name string, left *budget) ([]byte, bool, error) {
	info, err := fs.Stat(files, name) // to open a named pipe would block
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	if !info.Mode().IsRegular() {
		return nil, false, fmt.Errorf("%s: not a regular file", name)
	}
	f, err := files.Open(name)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, int64(left.left)+1))
	if err = errors.Join(err, left.spend(len(text))); err != nil {
		return nil, false, fmt.Errorf("%s: %w", name, err)
	}
	return text, true, nil
}

// Labels of filesystems with data for the machine: NoCloud of cloud-init, and
// the configuration drive of OpenStack.
// https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html
// https://docs.openstack.org/nova/latest/admin/config-drive.html
const (
	noCloudLabel     = "cidata"
	configDriveLabel = "config-2"
)

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
	left := newBudget()
	read := func(name string) ([]byte, bool, error) { return readFile(medium, name, left) }
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
		if _, err := fs.Stat(medium, "vendor-data"); err == nil {
			found.ignored = append(found.ignored, "vendor-data is not supported: move it to user-data")
		}
		network, ok, err := read("network-config")
		if ok {
			found.set("network-config", string(network))
			found.addNetworkConfig(network)
		}
		return found, err
	}
	return nil, errAbsent
}

// metaData is what has an effect in the meta-data of cloud-init.
type metaData struct {
	InstanceID    string    `yaml:"instance-id"`
	LocalHostname string    `yaml:"local-hostname"`
	Hostname      string    `yaml:"hostname"`
	PublicKeys    yaml.Node `yaml:"public-keys"`
	Network       yaml.Node `yaml:"network"`
	Encoding      string    `yaml:"network.encoding"`
}

// addMetaData stores the meta-data of cloud-init as a file and parses it. On
// VMware it may contain the network configuration, encoded or not.
func (in *instance) addMetaData(text []byte) {
	in.set("metadata", string(text))
	var meta metaData
	var node yaml.Node
	err := yaml.Unmarshal(text, &node)
	if err == nil && len(text) > 0 {
		err = node.Decode(&meta)
	}
	if err != nil {
		log.Printf("meta-data: %v: written only to the file metadata", err)
		return
	}
	in.set("instance_id", meta.InstanceID)
	in.set("hostname", first(meta.LocalHostname, meta.Hostname))
	in.addPublicKeys(&meta.PublicKeys)
	for _, key := range unknownKeys(&node, reflect.TypeFor[metaData](), "") {
		in.ignored = append(in.ignored, fmt.Sprintf("meta-data: %q has no effect: it is only in the file metadata", key))
	}
	switch meta.Network.Kind {
	case yaml.MappingNode:
		in.addNetworkNode(&meta.Network)
	case yaml.ScalarNode:
		decoded, err := decodeGuestInfo(meta.Network.Value, meta.Encoding)
		if in.networkErr = err; err == nil {
			in.addNetworkConfig(decoded)
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
