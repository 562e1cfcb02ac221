package main

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/slipway-build/slipway/guest/blkid"
)

// plainCipher and plainKeySize, in bytes, are those of LinuxKit's package, so
// that its disks can be opened.
const (
	plainCipher  = "aes-cbc-essiv:sha256"
	plainKeySize = 32
)

// cryptCommand opens an encrypted device as /dev/mapper/NAME. It initializes
// only an unused device, with encryption and ext4, so that neither a wrong key
// nor a wrong device destroys data.
func cryptCommand(flags *flag.FlagSet, args []string) error {
	var luks bool
	var keyFile string
	for _, name := range []string{"l", "luks"} {
		flags.BoolVar(&luks, name, false, "use a LUKS header")
	}
	for _, name := range []string{"k", "key-file"} {
		flags.StringVar(&keyFile, name, "key", "`FILE` with the key; a relative path is below /etc/dm-crypt")
	}
	timeout := timeoutFlag(flags)
	words, err := parse(flags, args, "NAME DEVICE", 2, 2)
	if err != nil {
		return err
	}
	name, path := words[0], words[1]
	if !filepath.IsAbs(keyFile) {
		keyFile = filepath.Join("/etc/dm-crypt", keyFile)
	}
	var d device
	err = await(*timeout, func() error {
		d, err = inspect(path)
		return err
	})
	if err != nil {
		return err
	}
	unused := d.empty
	if d.content.Type == "ext4" {
		if unused, err = neverMounted(path); err != nil {
			return err
		}
	}
	if luks {
		err = openLUKS(name, d, keyFile, unused)
	} else {
		err = openPlain(name, path, keyFile)
	}
	if err != nil {
		return err
	}
	// LUKS verifies the key, so a device without a filesystem is a new one.
	return ensureFilesystem(name, d, keyFile, luks || unused)
}

// ensureFilesystem makes an ext4 on the opened device if it has no filesystem. If
// the device is not new, it closes it instead, because the key must be wrong.
func ensureFilesystem(name string, d device, keyFile string, isNew bool) error {
	opened := filepath.Join(mapper, name)
	content, err := blkid.Identify(opened)
	switch {
	case err == nil:
		log.Printf("opened %s as %s (%v)", d.path, opened, content)
		return nil
	case !errors.Is(err, blkid.ErrUnknown):
		return err
	case !isNew:
		return errors.Join(fmt.Errorf("no filesystem found with the key in %s, and no new one made because the device is not empty: %v", keyFile, d), unmapDevice(name))
	}
	if err := mkfs("ext4", "", opened); err != nil {
		return err
	}
	log.Printf("opened %s as %s with a new ext4", d.path, opened)
	return nil
}

func openPlain(name, path, keyFile string) error {
	f, err := os.Open(keyFile)
	if err != nil {
		return err
	}
	defer f.Close()
	key := make([]byte, plainKeySize)
	if _, err := io.ReadFull(f, key); err != nil {
		return fmt.Errorf("%s: must have at least %d bytes: %w", keyFile, len(key), err)
	}
	return mapEncrypted(name, path, plainCipher, key)
}

func openLUKS(name string, d device, keyFile string, unused bool) error {
	if d.content.Type != "crypto_LUKS" {
		if !unused {
			return fmt.Errorf("%v, not LUKS: not changed", d)
		}
		if err := cryptsetup("luksFormat", "--type", "luks2", d.path, keyFile); err != nil {
			return err
		}
	}
	return cryptsetup("open", "--type", "luks", "--key-file", keyFile, d.path, name)
}

// cryptsetup does not use the keyring of the kernel, because the seccomp
// profile of the container forbids it.
func cryptsetup(args ...string) error {
	if out, err := exec.Command("/sbin/cryptsetup", append([]string{"--batch-mode", "--disable-keyring"}, args...)...).CombinedOutput(); err != nil {
		return fmt.Errorf("cryptsetup %s: %w: %s", args[0], err, out)
	}
	return nil
}

// neverMounted reports whether an ext4 has not been mounted since mkfs
// (https://docs.kernel.org/filesystems/ext4/super.html).
func neverMounted(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	super := make([]byte, 64)
	if _, err := f.ReadAt(super, 1024); err != nil {
		return false, err
	}
	mountTime, mountCount := binary.LittleEndian.Uint32(super[44:]), binary.LittleEndian.Uint16(super[52:])
	return mountTime == 0 && mountCount == 0, nil
}
