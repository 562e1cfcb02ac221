//go:build !nocrypt

package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/slipway-build/slipway/guest/blockdev"
	"github.com/slipway-build/slipway/guest/luks"
	"github.com/slipway-build/slipway/guest/tpm"
)

// A sealed disk has a LUKS header, the sealed key between the key slots and the data,
// and the data. The key is bound to all bytes of the header and to the name of the
// device, so that no header but the one that this machine wrote is used.
const (
	sealedAt    = 1 << 20 // bytes
	sealedSize  = 8 << 10 // bytes
	sealedMagic = "SLIPWAY SEALED KEY 1\n"
	keySize     = 32 // bytes of the passphrase of the key slot
)

// A sealedDisk is a disk with a sealed key, and the TPM.
type sealedDisk struct {
	file *os.File
	name string // of the opened device
	pcrs []int
	tpm  *tpm.TPM
}

// openSealed opens an encrypted device whose key the TPM has sealed. It initializes
// an empty device.
func openSealed(name string, d device, pcrs []int, wait time.Duration) error {
	t, err := tpm.Open(wait)
	if err != nil {
		return err
	}
	defer t.Close()
	f, err := blockdev.Open(d.path, os.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	disk := sealedDisk{f, name, pcrs, t}
	switch {
	case d.empty:
		if err := disk.initialize(); err != nil {
			return fmt.Errorf("initialize %s: %w", d.path, err)
		}
		log.Printf("%s is encrypted with a new key, sealed to the PCRs %s", d.path, tpm.FormatPCRs(pcrs))
	case d.content.Type != "crypto_LUKS":
		return fmt.Errorf("%v, not LUKS: not changed", d)
	}
	h, key, err := disk.unseal()
	if err != nil {
		return fmt.Errorf("%s: %w", d.path, err)
	}
	defer clear(key)
	return openWithHeader(h, key, "--key-file", "-", d.path, name)
}

// initialize writes a new header and its sealed key. The beginning of the disk is
// written last, so that the disk stays empty until the rest is complete.
func (d sealedDisk) initialize() error {
	key := make([]byte, keySize)
	rand.Read(key)
	defer clear(key)
	dir, err := os.MkdirTemp(memory, "luks-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "header")
	args := append(append([]string{"luksFormat"}, luks.FormatArgs()...), "--header", file, "--key-file", "-", d.file.Name())
	if err := cryptsetup(key, args...); err != nil {
		return err
	}
	written, err := os.Open(file)
	if err != nil {
		return err
	}
	defer written.Close()
	h, err := readProfile(written)
	if err != nil {
		return err
	}
	sealed, err := d.tpm.Seal(key, d.context(h), d.pcrs)
	if err != nil {
		return err
	}
	text, err := json.Marshal(sealed)
	if err != nil {
		return err
	}
	block := append([]byte(sealedMagic), text...)
	if len(block) > sealedSize {
		return fmt.Errorf("the sealed key has %d bytes", len(block))
	}
	block = append(block, make([]byte, sealedSize-len(block))...)
	const first = 4096 // with what blkid looks for
	for _, part := range []struct {
		data []byte
		at   int64
	}{{block, sealedAt}, {h.Copy[first:], first}, {h.Copy[:first], 0}} {
		if _, err := d.file.WriteAt(part.data, part.at); err != nil {
			return err
		}
		if err := d.file.Sync(); err != nil {
			return err
		}
	}
	return nil
}

// unseal returns a copy of the header, which this machine wrote, and the key.
func (d sealedDisk) unseal() (*luks.Header, []byte, error) {
	h, err := readProfile(d.file)
	if err != nil {
		return nil, nil, err
	}
	block := make([]byte, sealedSize)
	if _, err := d.file.ReadAt(block, sealedAt); err != nil {
		return nil, nil, err
	}
	text, ok := bytes.CutPrefix(bytes.TrimRight(block, "\x00"), []byte(sealedMagic))
	if !ok {
		return nil, nil, errors.New("there is no sealed key: this package did not write the disk: refused")
	}
	var sealed tpm.Sealed
	if err := json.Unmarshal(text, &sealed); err != nil {
		return nil, nil, fmt.Errorf("the sealed key is damaged: %w: refused", err)
	}
	key, err := d.tpm.Unseal(&sealed, d.context(h), d.pcrs)
	if err != nil {
		return nil, nil, fmt.Errorf("the key of the disk was %w: refused", err)
	}
	return h, key, nil
}

// readProfile reads a header and checks that it is like those that initialize writes.
func readProfile(r io.ReaderAt) (*luks.Header, error) {
	h, err := luks.Read(r)
	if err == nil {
		err = h.CheckCiphers()
	}
	if err == nil {
		err = h.CheckProfile()
	}
	return h, err
}

// context is what the key is bound to.
func (d sealedDisk) context(h *luks.Header) []byte {
	return fmt.Appendf(nil, "dm-crypt %q %x", d.name, sha256.Sum256(h.Copy))
}
