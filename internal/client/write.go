package client

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cespare/xxhash/v2"
	"github.com/moby/buildkit/client/llb"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/frontend"
	graph "github.com/slipway-build/slipway/llb"
)

// A formatWriter writes formats in this process, from parts in the user's store.
// BuildKit makes only the parts that the store lacks, and no container writes the
// formats.
type formatWriter struct {
	*frontend.Local
	store   *store
	scratch string              // directory for parts that are not stored
	reads   *semaphore.Weighted // limits the memory of transfers
}

// chunk is how many bytes of a file one message transfers, of the 16 MiB that
// gRPC allows.
const chunk = 4 << 20

// maxReads is how many chunks are in transfer at once.
const maxReads = 4

// write writes the formats into a directory.
func (w *formatWriter) write(ctx context.Context, writes []graph.Write, dir string) error {
	for _, one := range writes {
		in, err := w.input(ctx, one)
		if err != nil {
			return err
		}
		warn := func(text string) { w.Warn(ctx, text) }
		files, err := format.Write(one.Format.Name, in, dir, warn)
		if err != nil {
			return w.Explain(one, err)
		}
		for _, name := range files {
			// As BuildKit does.
			if err := os.Chtimes(name, in.Time, in.Time); err != nil {
				return err
			}
		}
	}
	return nil
}

// input returns the input of a format with the names of its files. It fetches all
// parts at once.
func (w *formatWriter) input(ctx context.Context, one graph.Write) (format.Input, error) {
	in := one.Input
	var boot string
	in.Segments = make([]segment.Dir, len(one.Segments))
	group, ctx := errgroup.WithContext(ctx)
	fetch := func(p *graph.Part, dir *string) {
		group.Go(func() (err error) {
			*dir, err = w.part(ctx, p)
			return err
		})
	}
	if one.Boot != nil {
		fetch(one.Boot, &boot)
	}
	if one.Loaders != nil {
		fetch(one.Loaders, &in.Loaders)
	}
	for i, p := range one.Segments {
		in.Segments[i].Name = p.Name
		if p != one.Boot {
			fetch(p, &in.Segments[i].Path)
		}
	}
	if err := group.Wait(); err != nil {
		return in, err
	}
	for i, p := range one.Segments {
		if p == one.Boot {
			in.Segments[i].Path = boot
		}
	}
	if one.Boot != nil {
		in.Kernel = filepath.Join(boot, segment.KernelName)
		in.Ucode = filepath.Join(boot, segment.UcodeName) // which may be missing
	}
	return in, nil
}

// part returns the directory with the files of a part.
func (w *formatWriter) part(ctx context.Context, p *graph.Part) (string, error) {
	if p.Files != nil {
		dir, err := os.MkdirTemp(w.scratch, "")
		for name, data := range p.Files {
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, filepath.Base(name)), data, 0o600)
			}
		}
		return dir, err
	}
	def, err := p.State.Marshal(ctx, llb.WithCaps(w.Caps))
	if err != nil {
		return "", fmt.Errorf("marshal the graph: %w", err)
	}
	fill := func(dir string) (map[string]storedFile, error) { return w.fetch(ctx, p, dir) }
	if !isStorable(def.ToPB()) {
		dir, err := os.MkdirTemp(w.scratch, "")
		if err == nil {
			_, err = fill(dir)
		}
		return dir, err
	}
	key := partKey(def.ToPB(), p.Path)
	if dir := w.store.get(key); dir != "" {
		return dir, nil
	}
	return w.store.put(key, fill)
}

// partKey returns the key of a part in the store.
func partKey(def *pb.Definition, path string) string {
	return fmt.Sprintf("%x", sha256.Sum256([]byte(graphDigest(def)+" "+path)))
}

// fetch lets BuildKit make a part and receives its files.
func (w *formatWriter) fetch(ctx context.Context, p *graph.Part, to string) (map[string]storedFile, error) {
	ref, err := w.Solve(ctx, p.State)
	if err != nil {
		return nil, err
	}
	entries, err := ref.ReadDir(ctx, gateway.ReadDirRequest{Path: p.Path})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.Name, err)
	}
	root, err := os.OpenRoot(to)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	index := map[string]storedFile{}
	for _, e := range entries {
		if !os.FileMode(e.Mode).IsRegular() {
			return nil, fmt.Errorf("%s: %q is not a file", p.Name, e.Path)
		}
		file, err := w.receive(ctx, ref, filepath.Join(p.Path, e.Path), e.Size, root)
		if err != nil {
			return nil, fmt.Errorf("%s: receive %q: %w", p.Name, e.Path, err)
		}
		index[e.Path] = file
	}
	return index, nil
}

// receive writes a file of a reference into a directory.
func (w *formatWriter) receive(ctx context.Context, ref gateway.Reference, name string, size int64, to *os.Root) (storedFile, error) {
	f, err := to.OpenFile(filepath.Base(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return storedFile{}, err
	}
	defer f.Close()
	sum := xxhash.New()
	for done := int64(0); done < size; {
		n, err := w.receiveChunk(ctx, ref, gateway.ReadRequest{
			Filename: name,
			Range:    &gateway.FileRange{Offset: int(done), Length: int(min(chunk, size-done))},
		}, func(data []byte) error {
			sum.Write(data)
			_, err := f.Write(data)
			return err
		})
		if err != nil {
			return storedFile{}, err
		}
		done += n
	}
	return storedFile{size, sum.Sum64()}, f.Close()
}

func (w *formatWriter) receiveChunk(ctx context.Context, ref gateway.Reference, req gateway.ReadRequest, write func([]byte) error) (int64, error) {
	if err := w.reads.Acquire(ctx, 1); err != nil {
		return 0, err
	}
	defer w.reads.Release(1)
	data, err := ref.ReadFile(ctx, req)
	if err != nil {
		return 0, err
	}
	if len(data) != req.Range.Length {
		return 0, fmt.Errorf("received %d of %d bytes", len(data), req.Range.Length)
	}
	return int64(len(data)), write(data)
}
