package artifact

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sync/errgroup"
)

// Save writes the disk to a file of its Name in a directory, which it replaces,
// and returns the name. The file is sparse where the disk is zero. If Save fails,
// the file is as before.
func (a *Artifact) Save(ctx context.Context, dir *os.Root) (string, error) {
	part := "." + a.Name + ".part"
	if err := dir.Remove(part); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	// O_EXCL also refuses a symbolic link.
	file, err := dir.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return "", err
	}
	err = errors.Join(a.write(ctx, file), file.Close())
	if err == nil {
		err = dir.Rename(part, a.Name)
	}
	if err != nil {
		return "", errors.Join(err, dir.Remove(part))
	}
	return a.Name, nil
}

// write writes the disk to an empty file.
func (a *Artifact) write(ctx context.Context, file *os.File) error {
	if err := file.Truncate(a.Size); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxRequests)
	for first := int32(0); first < a.index.count() && ctx.Err() == nil; first += runBlocks {
		var blocks []int32
		for i := first; i < min(first+runBlocks, a.index.count()); i++ {
			if a.index.frame(i) != nil {
				blocks = append(blocks, i)
			}
		}
		if blocks == nil {
			continue
		}
		group.Go(func() error {
			data, err := a.load(first / runBlocks)
			if err != nil {
				return err
			}
			for _, i := range blocks {
				piece := data[int64(i-first)*blockSize:][:a.index.length(i)]
				if _, err := file.WriteAt(piece, int64(i)*blockSize); err != nil {
					return fmt.Errorf("write %s: %w", a.Name, err)
				}
			}
			return ctx.Err()
		})
	}
	return group.Wait()
}
