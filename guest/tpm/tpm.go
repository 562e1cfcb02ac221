// Package tpm seals secrets with a TPM 2.0 and attests with it what a machine has
// booted.
//
// It uses the bank of SHA-256, and names registers (PCRs) by their numbers. It
// removes what it loads into the TPM, so it needs no resource manager. The device
// can be opened by one program at a time.
//
// Specification: Trusted Platform Module 2.0 Library, Part 3, revision 1.59.
package tpm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"golang.org/x/sys/unix"
)

// Device is the device of the TPM: a character device with the numbers 10 and 224.
const Device = "/dev/tpm0"

// ErrNone is the error for a machine without a TPM.
var ErrNone = errors.New("the machine has no TPM 2.0, or no driver for it")

// A TPM is an opened TPM. Close it when done.
type TPM struct{ tpm transport.TPMCloser }

// Open opens the device. If another program has it open, Open waits for at most the
// given time.
func Open(wait time.Duration) (*TPM, error) {
	for deadline := time.Now().Add(wait); ; time.Sleep(100 * time.Millisecond) {
		// os.OpenFile opens devices without blocking. The driver then returns from a
		// read before the TPM responds.
		fd, err := unix.Open(Device, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			err = &os.PathError{Op: "open", Path: Device, Err: err}
		}
		switch {
		case err == nil:
			return New(device{os.NewFile(uintptr(fd), Device)}), nil
		case errors.Is(err, unix.EBUSY) && time.Now().Before(deadline):
		case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
			if time.Now().After(deadline) {
				return nil, fmt.Errorf("%w: %w", ErrNone, err)
			}
		default:
			return nil, err
		}
	}
}

// New returns a TPM behind a transport.
func New(t transport.TPMCloser) *TPM { return &TPM{t} }

// Close closes the device.
func (t *TPM) Close() error { return t.tpm.Close() }

// maxResponse limits a response in bytes: TPM_PT_MAX_RESPONSE_SIZE of TPMs in use.
const maxResponse = 4096

type device struct{ *os.File }

// Send implements transport.TPM. The driver takes a command in one write and returns
// the response in one read.
func (d device) Send(command []byte) ([]byte, error) {
	if _, err := d.Write(command); err != nil {
		return nil, err
	}
	response := make([]byte, maxResponse)
	n, err := d.Read(response)
	return response[:n], err
}

// maxPCR is the last register of a TPM for PCs.
const maxPCR = 23

// ParsePCRs parses a list of registers as of systemd-cryptenroll(1), for example
// "7+11". The result is sorted.
func ParsePCRs(text string) ([]int, error) {
	var pcrs []int
	for _, s := range strings.Split(text, "+") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 || n > maxPCR || slices.Contains(pcrs, n) {
			return nil, fmt.Errorf("%q: want different numbers from 0 to %d with + between them, for example 7+11", text, maxPCR)
		}
		pcrs = append(pcrs, n)
	}
	slices.Sort(pcrs)
	return pcrs, nil
}

// FormatPCRs is the opposite of ParsePCRs.
func FormatPCRs(pcrs []int) string {
	var texts []string
	for _, n := range pcrs {
		texts = append(texts, strconv.Itoa(n))
	}
	return strings.Join(texts, "+")
}

func selection(pcrs []int) tpm2.TPMLPCRSelection {
	var numbers []uint
	for _, n := range pcrs {
		numbers = append(numbers, uint(n))
	}
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(numbers...)}}}
}

// PCRs returns the values of registers.
func (t *TPM) PCRs(pcrs []int) ([][]byte, error) {
	var values [][]byte
	// A response may have fewer values than the request, so ask for each.
	for _, n := range pcrs {
		r, err := tpm2.PCRRead{PCRSelectionIn: selection([]int{n})}.Execute(t.tpm)
		if err != nil {
			return nil, fmt.Errorf("read PCR %d: %w", n, err)
		}
		if len(r.PCRValues.Digests) != 1 {
			return nil, fmt.Errorf("read PCR %d: the TPM has no bank of SHA-256", n)
		}
		values = append(values, r.PCRValues.Digests[0].Buffer)
	}
	return values, nil
}

// measuredPCRs is like PCRs, but fails if nothing has been measured into one. A
// program that boots without measuring could bring such a register into any state.
func (t *TPM) measuredPCRs(pcrs []int) ([][]byte, error) {
	values, err := t.PCRs(pcrs)
	if err != nil {
		return nil, err
	}
	for i, v := range values {
		if bytes.Count(v, []byte{0}) == len(v) || bytes.Count(v, []byte{0xff}) == len(v) {
			return nil, fmt.Errorf("nothing has been measured into PCR %d: boot a unified kernel image with UEFI, or choose other PCRs", pcrs[i])
		}
	}
	return values, nil
}

// primary creates a primary key, which is the same until the owner of the hierarchy
// changes its seed. The caller must flush it.
func (t *TPM) primary(hierarchy tpm2.TPMHandle, template tpm2.TPMTPublic) (*tpm2.CreatePrimaryResponse, error) {
	r, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.AuthHandle{Handle: hierarchy, Auth: tpm2.PasswordAuth(nil)}, InPublic: tpm2.New2B(template)}.Execute(t.tpm)
	if err != nil {
		return nil, fmt.Errorf("create a primary key: %w", err)
	}
	return r, nil
}

// flush removes an object from the TPM. If it fails, the driver removes the object
// when the device is closed, or the machine reboots without harm.
func (t *TPM) flush(handle tpm2.TPMHandle) { tpm2.FlushContext{FlushHandle: handle}.Execute(t.tpm) }
