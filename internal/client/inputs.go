package client

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/moby/buildkit/client"

	"github.com/slipway-build/slipway/frontend"
	"github.com/slipway-build/slipway/internal/version"
	"github.com/slipway-build/slipway/machine"
)

// inputs are everything that the files of a build depend on, if digests name all
// images. Two builds with equal inputs write the same files.
type inputs struct {
	Program program
	Builder []builderInput
	Name    string // of the machine YAML
	Target  string
	Args    map[string]string
	Cache   []string // sources of BuildKit's cache
	// Platforms are those of the command line. The first platform of the builder is
	// the default.
	Platforms []string
	Files     []inputFile
}

// program identifies this program, which contains the frontend.
type program struct {
	Version string
	Size    int64
	MTime   time.Time
}

// builderInput is a worker of the builder.
type builderInput struct {
	ID        string
	Version   string
	Labels    map[string]string
	Platforms []string
}

// An inputFile is a file on this computer. Owner and mode of a source do not
// matter: the machine YAML sets those of files.
type inputFile struct {
	Name    string
	Missing bool   `json:",omitzero"`
	SHA256  string `json:",omitzero"`
}

// inputDigest returns the digest of the inputs of a build. It returns "" if
// BuildKit must find out whether the result is the same: an image or the frontend
// has no digest, or files come from elsewhere than the build context.
func (o Options) inputDigest(ctx context.Context, b *Builder) string {
	if len(o.BuildContexts) > 0 || len(o.Secrets) > 0 || len(o.SSH) > 0 || o.Pull || len(o.Platforms) > 1 || os.Getenv(sourcePolicyVariable) != "" {
		return ""
	}
	files, err := o.inputFiles()
	if err != nil {
		return ""
	}
	workers, err := b.ListWorkers(ctx)
	if err != nil {
		return ""
	}
	self, err := thisProgram()
	if err != nil {
		return ""
	}
	return o.digest(self, workers, files)
}

func (o Options) digest(self program, workers []*client.WorkerInfo, files []inputFile) string {
	in := inputs{
		Program:   self,
		Name:      filepath.Base(o.File),
		Target:    o.Target,
		Args:      o.BuildArgs,
		Cache:     o.CacheFrom,
		Platforms: o.Platforms,
		Files:     files,
	}
	for _, w := range workers {
		worker := builderInput{ID: w.ID, Version: w.BuildkitVersion.Version + " " + w.BuildkitVersion.Revision, Labels: w.Labels}
		for _, p := range w.Platforms {
			worker.Platforms = append(worker.Platforms, fmt.Sprint(p))
		}
		in.Builder = append(in.Builder, worker)
	}
	data, err := json.Marshal(in) // sorts the keys of maps
	if err != nil {
		return ""
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256(data))
}

// thisProgram identifies the program by its file too, because a program without
// a release, built from a changed checkout, has no version of its own.
func thisProgram() (program, error) {
	path, err := os.Executable()
	if err != nil {
		return program{}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return program{}, err
	}
	return program{version.Detailed(), info.Size(), info.ModTime()}, nil
}

var errUnpinned = errors.New("the result does not depend on files and digests alone")

// inputFiles returns the files that the build reads.
func (o Options) inputFiles() ([]inputFile, error) {
	m, yamls, err := o.parse()
	if err != nil {
		return nil, err // which the frontend explains
	}
	lock := frontend.LockName(o.File)
	if !isPinnedMachine(m, o.File, lock) {
		return nil, errUnpinned
	}
	var files []inputFile
	ignores := []string{o.File + ".dockerignore", filepath.Join(o.Context, ".dockerignore")}
	for _, name := range slices.Concat(yamls, []string{lock}, ignores) {
		f, err := readInput(name)
		if err != nil {
			return nil, err
		}
		if f.Name, err = filepath.Rel(filepath.Dir(o.File), name); err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	context, err := filepath.Abs(o.Context)
	if err != nil {
		return nil, err
	}
	if context, err = filepath.EvalSymlinks(context); err != nil {
		return nil, err
	}
	for _, s := range m.Sources() {
		name := filepath.Join(context, s.Source)
		// BuildKit follows symbolic links within the context, and not out of it.
		switch real, err := filepath.EvalSymlinks(name); {
		case s.Outside() || err == nil && real != name:
			return nil, errUnpinned
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
		f, err := readInput(name)
		if err != nil {
			return nil, err
		}
		f.Name = s.Source
		files = append(files, f)
	}
	return files, nil
}

// isPinnedMachine reports whether digests name all images of a machine, and it
// has no secrets.
func isPinnedMachine(m *machine.Machine, yml, lock string) bool {
	for _, f := range m.Files {
		if f.Secret != "" {
			return false
		}
	}
	text, err := os.ReadFile(yml)
	if err != nil {
		return false
	}
	locked, err := os.ReadFile(lock)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	return frontend.IsPinned(m, yml, text, locked)
}

func readInput(name string) (inputFile, error) {
	var in inputFile
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		in.Missing = true
		return in, nil
	}
	if err != nil {
		return in, err
	}
	if !info.Mode().IsRegular() {
		return in, errUnpinned
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return in, err
	}
	in.SHA256 = fmt.Sprintf("%x", sha256.Sum256(data))
	return in, nil
}
