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

// plainCipher and plainKeySize, in bytes, are those of LinuxKit's package, whose disks can be read.
const (
	plainCipher  = "aes-cbc-essiv:sha256"
	plainKeySize = 32
)

// cryptCommand opens an encrypted device as /dev/mapper/NAME. A device that is not in use yet becomes an encrypted one with ext4 in it; no other
// device does, so that neither a wrong key nor a wrong device destroys data.
func cryptCommand(flags *flag.FlagSet, args []string) error {
	var luks bool
	var keyFile string
	for _, name := range []string{"l", "luks"} {
		flags.BoolVar(&luks, name, false, "with a LUKS header")
	}
	for _, name := range []string{"k", "key-file"} {
		flags.StringVar(&keyFile, name, "key", "`FILE` with the key, in /etc/dm-crypt if it is no absolute path")
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
		d, err = look(path)
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
	opened := filepath.Join(mapper, name)
	content, err := blkid.Identify(opened)
	switch {
	case err == nil:
		log.Printf("%s is open as %s, %v", path, opened, content)
		return nil
	case !errors.Is(err, blkid.ErrUnknown):
		return err
	case !luks && !unused: // the key of LUKS is known to be right
		return errors.Join(fmt.Errorf("the key in %s opens no filesystem: %v, and only an empty device gets a new one", keyFile, d), unmapDevice(name))
	}
	if err := mkfs("ext4", "", opened); err != nil {
		return err
	}
	log.Printf("%s is open as %s, with a new ext4", path, opened)
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
		return fmt.Errorf("%s: %d bytes are needed: %w", keyFile, len(key), err)
	}
	return mapEncrypted(name, path, plainCipher, key)
}

func openLUKS(name string, d device, keyFile string, unused bool) error {
	if d.content.Type != "crypto_LUKS" {
		if !unused {
			return fmt.Errorf("%v, not LUKS: nothing is changed", d)
		}
		if err := cryptsetup("luksFormat", "--type", "luks2", d.path, keyFile); err != nil {
			return err
		}
	}
	return cryptsetup("open", "--type", "luks", "--key-file", keyFile, d.path, name)
}

// cryptsetup gets along without the kernel's keyring, which a filter of system calls keeps from containers.
func cryptsetup(args ...string) error {
	if out, err := exec.Command("/sbin/cryptsetup", append([]string{"--batch-mode", "--disable-keyring"}, args...)...).CombinedOutput(); err != nil {
		return fmt.Errorf("cryptsetup %s: %w: %s", args[0], err, out)
	}
	return nil
}

// neverMounted tells whether ext4 is as mkfs left it. https://docs.kernel.org/filesystems/ext4/super.html
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
	mounted, times := binary.LittleEndian.Uint32(super[44:]), binary.LittleEndian.Uint16(super[52:])
	return mounted == 0 && times == 0, nil
}
