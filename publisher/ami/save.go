package ami

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"golang.org/x/sync/errgroup"

	"github.com/slipway-build/slipway/publisher/disk"
)

// Save reads the disk of an AMI or a snapshot through the EBS direct API and
// writes it to an empty file, which becomes as large as the volume. What the
// snapshot does not list are holes. Of the options, Save uses Regions, Workers,
// Rate, Timeout and Monitor.
func Save(ctx context.Context, cfg aws.Config, id string, file *os.File, o Options) error {
	region, err := locate(cfg, id, o)
	if err != nil {
		return err
	}
	if o.Monitor == nil {
		o.Monitor = new(Monitor)
	}
	services := connect(cfg, region, newHTTPClient(cfg, o.Workers), limits{o.Timeout, o.Workers, o.Rate, &o.Monitor.Retries})
	snapshot := id
	if isImage(id) {
		if _, snapshot, err = services.root(ctx, id, region); err != nil {
			return err
		}
	}
	found, tokens, err := services.readable(ctx, snapshot)
	if err != nil {
		return err
	}
	size := int64(aws.ToInt32(found.VolumeSize)) << 30
	if err := file.Truncate(size); err != nil {
		return &Error{ClassDisk, err}
	}
	if o.Monitor.Step != nil {
		o.Monitor.Step(region, fmt.Sprintf("reading %d blocks of %s", len(tokens), snapshot))
	}
	o.Monitor.Blocks.Add(int64(len(tokens)))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(min(64, o.Workers))
	for _, index := range slices.Sorted(maps.Keys(tokens)) {
		group.Go(func() error {
			offset := int64(index) * disk.BlockSize
			if offset < 0 || offset > size-disk.BlockSize {
				return fail(ClassOther, "%s lists block %d, which is not in its volume", snapshot, index)
			}
			var data bytes.Buffer
			sum, err := services.blocks.sum(ctx, snapshot, index, tokens[index], &data)
			if err != nil {
				return describe(fmt.Sprintf("read block %d of %s", index, snapshot), err)
			}
			o.Monitor.Written.Add(1)
			if sum == disk.Zero {
				return nil
			}
			if _, err := file.WriteAt(data.Bytes(), offset); err != nil {
				return &Error{ClassDisk, err}
			}
			return nil
		})
	}
	return group.Wait()
}

func isImage(id string) bool { return strings.HasPrefix(id, "ami-") }

// locate returns the region of an AMI or a snapshot.
func locate(cfg aws.Config, id string, o Options) (region string, err error) {
	if !isImage(id) && !strings.HasPrefix(id, "snap-") {
		return "", fail(ClassUsage, "%q is neither an AMI (ami-…) nor a snapshot (snap-…)", id)
	}
	regions, err := resolveRegions(cfg, o.Regions)
	if err != nil {
		return "", err
	}
	if len(regions) > 1 {
		return "", fail(ClassUsage, "%s exists in one region: use --region with one", id)
	}
	return regions[0], nil
}

// root returns an image and the snapshot of its root device.
func (s services) root(ctx context.Context, id, region string) (*types.Image, string, error) {
	image, err := s.images.existing(ctx, id)
	if err != nil {
		return nil, "", describe("look for "+id, err)
	}
	if image == nil {
		return nil, "", fail(ClassUsage, "there is no AMI %s in %s", id, region)
	}
	snapshot := rootSnapshot(image)
	if snapshot == "" {
		return nil, "", fail(ClassUsage, "%s has no snapshot as its root device", id)
	}
	return image, snapshot, nil
}

// readable returns a snapshot whose blocks can be read, and their tokens.
func (s services) readable(ctx context.Context, id string) (*types.Snapshot, map[int32]string, error) {
	found, err := s.snapshots.byID(ctx, id)
	if err != nil {
		return nil, nil, describe("look for "+id, err)
	}
	if found.State != types.SnapshotStateCompleted {
		return nil, nil, fail(ClassOther, "%s is %s: only completed snapshots can be read", id, found.State)
	}
	if found.StorageTier == types.StorageTierArchive {
		return nil, nil, fail(ClassOther, "%s is archived: restore it with aws ec2 restore-snapshot-tier first", id)
	}
	tokens, err := s.blocks.list(ctx, id)
	if err != nil {
		return nil, nil, describe("list the blocks of "+id, err)
	}
	return found, tokens, nil
}
