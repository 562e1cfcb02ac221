package format

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/eif"
	"github.com/slipway-build/slipway/exporter/internal/atomicfile"
	"github.com/slipway-build/slipway/exporter/measure"
	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/exporter/uki"
	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/kernel"
)

// Input is what an output is made of.
type Input struct {
	Name         string           // prefix of the output files
	Architecture string           // a GOARCH
	Segments     []segment.Dir    // in the form of Format.Segments
	Starts       []contract.Start // what containers need to start
	Kernel       string           // file name; optional
	Cmdline      string           // kernel command line
	Ucode        string           // file name of the microcode archive; optional, and the file may be missing
	Loaders      string           // directory of the boot loaders, see disk.ReadLoaders
	Time         time.Time        // modification time of files
	Signer       *uki.Signer      // for Secure Boot; nil for none

	// EnclaveSigner signs an enclave image; nil for none.
	EnclaveSigner *eif.Signer

	// The user's choices. Formats ignore those that are not in Format.Options.
	Size    int64 // of the disk in bytes; 0 for the smallest that fits
	Map     bool  // write a map of the disk
	Reserve int64 // bytes for additions after the build
	PCRs    bool  // write the registers of a TPM after a boot
	// Keys are those of the firmware that boots a signed machine, for PCRs. They
	// are nil for firmware without Secure Boot.
	Keys        *measure.Keys
	Compression segment.Compression

	// Role and Instance are the ARN of the role and the ID of the instance that an
	// enclave runs on; both are optional.
	Role, Instance string
}

// A writer writes one format. Its values contain no functions, so that the
// linker can drop what only writers use.
type writer interface {
	write(j *job) error
}

// job is one call of Write.
type job struct {
	format Format
	in     Input
	dir    string
	warn   func(string)

	opened  sparse.Files // input files, open until the job ends
	closers []func()     // called when the job ends
	files   []string     // written so far
}

// Write writes the output of a format into the directory dir and returns the
// names of its files, which depend on in alone. It calls warn for each property
// of the machine that the format cannot represent. If Write fails, no file in
// dir is incomplete.
func Write(name string, in Input, dir string, warn func(string)) ([]string, error) {
	f, ok := Lookup(name)
	if !ok {
		return nil, fmt.Errorf("unknown format %q; the formats are %s", name, strings.Join(Names(), ", "))
	}
	if err := f.Check(in.Architecture); err != nil {
		return nil, err
	}
	if len(in.Segments) == 0 {
		return nil, errors.New("no segments are given")
	}
	if in.Name == "" || filepath.Base(in.Name) != in.Name || strings.HasPrefix(in.Name, ".") {
		return nil, fmt.Errorf("name %q cannot be the start of a file name", in.Name)
	}
	if !f.Options.Has(Reserve) {
		in.Reserve = 0
	}
	if err := disk.CheckReserve(in.Reserve); err != nil {
		return nil, err
	}
	if in.Reserve > 0 && in.Signer != nil {
		return nil, errors.New("a signed machine cannot reserve room for additions")
	}
	if f.Firmware != 0 && in.Kernel == "" {
		return nil, fmt.Errorf("%s needs a kernel: set kernel.image in the machine", name)
	}
	if in.Signer != nil && f.Options.Has(Enclave) {
		return nil, fmt.Errorf("%s cannot be signed after the build: use --build-arg SIGN=true", name)
	}
	if in.Signer != nil {
		if err := f.CheckSign(in.Architecture); err != nil {
			return nil, err
		}
	}
	if err := checkKernel(in.Kernel, in.Architecture); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	j := &job{format: f, in: in, dir: dir, warn: warn}
	defer j.close()
	if err := f.writer.write(j); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if in.PCRs && f.Options.Has(PCRs) {
		if err := j.writeMeasurements(); err != nil {
			return nil, fmt.Errorf("%s: predict the measurements: %w", name, err)
		}
	}
	return j.files, nil
}

// writeMeasurements writes the registers of a TPM after a boot of the output, which
// is the first file.
func (j *job) writeMeasurements() error {
	if j.in.Keys != nil {
		if j.in.Signer == nil {
			return errors.New("firmware with Secure Boot does not start an unsigned machine")
		}
		// Firmware measures the entry of db that verifies the machine.
		if c := j.in.Signer.Certificate; c != nil && !bytes.HasSuffix(j.in.Keys.Signer, c.Raw) {
			return errors.New("the keys of the firmware are not those of the signer: the first certificate in db is another one")
		}
	}
	f, err := os.Open(j.files[0])
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	m, err := measure.File(f, info.Size(), j.in.Keys)
	if err != nil {
		return err
	}
	return j.create(PCRsSuffix, func(f *os.File) error { return m.WriteJSON(f) })
}

// checkKernel returns an error if the boot header of a kernel names another
// architecture. Images from folders do not say for which one they are.
func checkKernel(name, architecture string) error {
	f, err := os.Open(name)
	if err != nil {
		return nil // the writer of the format reports it
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	h, err := kernel.ReadHeader(f, info.Size())
	switch {
	case errors.Is(err, kernel.ErrFormat):
		return nil
	case err != nil:
		return err
	case h.Architecture == architecture || h.Architecture == "386" && architecture == "amd64": // old headers do not say
		return nil
	}
	return fmt.Errorf("the kernel is for %s, but the machine for %s: set kernel.image to an image for %[2]s", h.Architecture, architecture)
}

func (j *job) close() {
	for _, c := range j.closers {
		c()
	}
	j.opened.Close()
}

// create writes the output file with a suffix.
func (j *job) create(suffix string, write func(f *os.File) error) error {
	name := filepath.Join(j.dir, j.in.Name+suffix)
	if err := atomicfile.Write(name, write); err != nil {
		return err
	}
	j.files = append(j.files, name)
	return nil
}

// createOnly writes the output file of a format that has one.
func (j *job) createOnly(write func(f *os.File) error) error {
	return j.create(j.format.Suffixes[0], write)
}

// tree opens the root filesystem that tar segments make. With boot, it has a
// directory boot with the kernel, if there is one.
func (j *job) tree(boot bool) ([]tree.Entry, error) {
	var files *segment.BootFiles
	if boot && j.in.Kernel != "" {
		files = &segment.BootFiles{Kernel: j.in.Kernel, Ucode: j.in.Ucode, Cmdline: j.in.Cmdline}
	}
	entries, closeTree, err := segment.Tree(j.in.Segments, files)
	if err != nil {
		return nil, err
	}
	j.closers = append(j.closers, closeTree)
	return entries, segment.CheckStarts(entries, j.in.Starts)
}
