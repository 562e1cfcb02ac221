//go:build !nocrypt

package main

import (
	"bytes"
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
	"github.com/slipway-build/slipway/guest/blockdev"
	"github.com/slipway-build/slipway/guest/luks"
	"github.com/slipway-build/slipway/guest/tpm"
)

// plainCipher and plainKeySize, in bytes, are those of LinuxKit's package, so
// that its disks can be opened.
const (
	plainCipher  = "aes-cbc-essiv:sha256"
	plainKeySize = 32
)

func init() { commands["crypto"] = cryptCommand }

// cryptsetupPath is the program, and memory a directory whose files never reach a disk.
// Tests use others.
var cryptsetupPath, memory = "/sbin/cryptsetup", "/run"

// cryptCommand opens an encrypted device as /dev/mapper/NAME. It initializes
// only an unused device, with encryption and ext4, so that neither a wrong key
// nor a wrong device destroys data.
func cryptCommand(flags *flag.FlagSet, args []string) error {
	var withLUKS, useTPM bool
	var keyFile, pcrText string
	for _, name := range []string{"l", "luks"} {
		flags.BoolVar(&withLUKS, name, false, "use a LUKS header")
	}
	for _, name := range []string{"k", "key-file"} {
		flags.StringVar(&keyFile, name, "key", "`FILE` with the key; a relative path is below /etc/dm-crypt")
	}
	flags.BoolVar(&useTPM, "tpm", false, "use LUKS, with a random key that only this machine can unseal with its TPM")
	flags.StringVar(&pcrText, "pcrs", "4+7+11", "`PCRS` of the TPM that must have the same values, for -tpm")
	timeout := timeoutFlag(flags)
	words, err := parse(flags, args, "NAME DEVICE", 2, 2)
	if err != nil {
		return err
	}
	name, path := words[0], words[1]
	pcrs, err := tpm.ParsePCRs(pcrText)
	if err != nil {
		return fmt.Errorf("-pcrs: %w", err)
	}
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
	switch {
	case useTPM:
		keyFile = "the TPM"
		err = openSealed(name, d, pcrs, *timeout)
	case withLUKS:
		err = openLUKS(name, d, keyFile, unused)
	default:
		err = openPlain(name, path, keyFile)
	}
	if err != nil {
		return err
	}
	// LUKS verifies the key, so a device without a filesystem is a new one.
	return ensureFilesystem(name, d, keyFile, withLUKS || useTPM || unused)
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
		if err := cryptsetup(nil, "luksFormat", "--type", "luks2", d.path, keyFile); err != nil {
			return err
		}
	}
	f, err := blockdev.Open(d.path, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	h, err := luks.Read(f)
	if err == nil {
		err = h.CheckCiphers()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", d.path, err)
	}
	return openWithHeader(h, nil, "--key-file", keyFile, d.path, name)
}

// openWithHeader lets cryptsetup open a device with a copy of its header that was
// checked. What is on the device can change at any time.
func openWithHeader(h *luks.Header, key []byte, args ...string) error {
	dir, err := os.MkdirTemp(memory, "luks-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "header")
	if err := os.WriteFile(file, h.Copy, 0o600); err != nil {
		return err
	}
	return cryptsetup(key, append([]string{"open", "--type", "luks", "--header", file}, args...)...)
}

// cryptsetup runs cryptsetup with a key on its standard input. It does not use the
// keyring of the kernel, because the seccomp profile of the container forbids it.
func cryptsetup(key []byte, args ...string) error {
	cmd := exec.Command(cryptsetupPath, append([]string{"--batch-mode", "--disable-keyring"}, args...)...)
	cmd.Stdin = bytes.NewReader(key)
	if out, err := cmd.CombinedOutput(); err != nil {
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
