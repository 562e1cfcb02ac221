package ami

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"golang.org/x/sync/errgroup"

	"github.com/slipway-build/slipway/publisher/disk"
)

// A Verification is the comparison of an AMI, or a snapshot, with a disk.
type Verification struct {
	Match    bool   `json:"match"` // there are no differences
	Region   string `json:"region"`
	Image    string `json:"image,omitempty"` // ID, or "" for a snapshot
	Snapshot string `json:"snapshot"`        // ID
	Disk     string `json:"disk"`            // file name
	Content  string `json:"content"`         // digest of the disk, with the prefix sha256:
	Blocks   int    `json:"blocks"`          // compared blocks of 512 KiB

	Attributes  []AttributeDifference `json:"attributes"`
	Different   int                   `json:"different"`       // number of blocks that differ
	Differences []BlockDifference     `json:"differences"`     // the first blocks that differ
	Notes       []string              `json:"notes,omitempty"` // what could not be compared, and why
}

// An AttributeDifference is an attribute of the registration that differs.
type AttributeDifference struct {
	Name string `json:"name"` // as in the EC2 API
	Got  string `json:"got"`
	Want string `json:"want"` // what a publish of the disk with the same options sets
}

// A BlockDifference is a block that differs.
type BlockDifference struct {
	Index int32     `json:"index"`
	Kind  BlockKind `json:"kind"`
	// Offset is that of the first byte that differs, from the start of the disk.
	// Bytes is the number of bytes that differ in the block, or 0 if the content
	// of the disk is not known.
	Offset int64 `json:"offset"`
	Bytes  int   `json:"bytes,omitempty"`
	disk.Place
}

// A BlockKind says how a block differs.
type BlockKind string

// Kinds of blocks that differ.
const (
	BlockChanged BlockKind = "changed" // both have data, but not the same
	BlockMissing BlockKind = "missing" // the disk has data, the snapshot none
	BlockExtra   BlockKind = "extra"   // the snapshot has data, the disk none
	// The disk has zeros. The snapshot, which is encrypted, does not have the
	// block, so that it reads as random data.
	BlockUnwritten BlockKind = "unwritten"
)

// maxDifferences is the number of blocks that a Verification describes.
const maxDifferences = 16

// Verify compares an AMI or a snapshot with a disk or its map, block by block. It reads all
// blocks of the snapshot and trusts no digest of AWS or in tags. The
// registration of an AMI must be the one that a publish of the disk with the
// same options would make. It makes no changes and needs no state.
//
// A difference is not an error: see Verification.Match.
func Verify(ctx context.Context, cfg aws.Config, id string, d *disk.Disk, o Options) (*Verification, error) {
	region, err := locate(cfg, id, o)
	if err != nil {
		return nil, err
	}
	if err := d.Verify(ctx); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, &Error{ClassDisk, err}
	}
	o.State = cmp.Or(o.State, "unused")
	if err := o.complete(d); err != nil {
		return nil, err
	}
	v := verifier{
		aws:  connect(cfg, region, newHTTPClient(cfg, o.Workers), limits{o.Timeout, o.Workers, o.Rate, &o.Monitor.Retries}),
		disk: d, options: &o,
		result: &Verification{
			Region: region, Disk: d.Name, Content: "sha256:" + d.Digest(), Snapshot: id,
			Attributes: []AttributeDifference{}, Differences: []BlockDifference{},
		},
	}
	if isImage(id) {
		if err := v.image(ctx, id); err != nil {
			return nil, err
		}
	}
	if err := v.snapshot(ctx); err != nil {
		return nil, err
	}
	v.result.Match = len(v.result.Attributes) == 0 && v.result.Different == 0
	return v.result, nil
}

// A verifier fills in a Verification.
type verifier struct {
	aws     services
	disk    *disk.Disk
	options *Options
	result  *Verification
}

func (v verifier) step(format string, args ...any) {
	if report := v.options.Monitor.Step; report != nil {
		report(v.result.Region, fmt.Sprintf(format, args...))
	}
}

// image compares the registration of an image and finds its snapshot.
func (v verifier) image(ctx context.Context, id string) error {
	image, snapshot, err := v.aws.root(ctx, id, v.result.Region)
	if err != nil {
		return err
	}
	v.result.Image, v.result.Snapshot = id, snapshot
	if !v.disk.MapOnly() {
		if _, err := v.options.checkBoot(v.disk); err != nil {
			return err
		}
	}
	want := v.options.registration()
	compare := func(name, got, want string) {
		if got != want {
			v.result.Attributes = append(v.result.Attributes, AttributeDifference{name, got, want})
		}
	}
	// A map does not show how its disk boots.
	if v.disk.MapOnly() && (want.Architecture == "" || want.BootMode == "") {
		v.result.Notes = append(v.result.Notes, fmt.Sprintf("the map does not show whether Architecture %s and BootMode %s are right: use the disk, or --arch and --boot-mode", image.Architecture, image.BootMode))
	}
	if want.Architecture != "" {
		compare("Architecture", string(image.Architecture), string(want.Architecture))
	}
	if want.BootMode != "" {
		compare("BootMode", string(image.BootMode), string(want.BootMode))
	}
	compare("ImdsSupport", string(image.ImdsSupport), string(want.ImdsSupport))
	compare("TpmSupport", string(image.TpmSupport), string(want.TpmSupport))
	compare("EnaSupport", fmt.Sprint(aws.ToBool(image.EnaSupport)), fmt.Sprint(aws.ToBool(want.EnaSupport)))
	compare("VirtualizationType", string(image.VirtualizationType), aws.ToString(want.VirtualizationType))
	compare("KernelId", aws.ToString(image.KernelId), aws.ToString(want.KernelId))
	compare("RamdiskId", aws.ToString(image.RamdiskId), aws.ToString(want.RamdiskId))
	compare("RootDeviceName", aws.ToString(image.RootDeviceName), aws.ToString(want.RootDeviceName))
	compare("BlockDeviceMappings", devices(image.BlockDeviceMappings, v.result.Snapshot), devices(want.BlockDeviceMappings, ""))
	return v.uefiData(ctx, id, compare)
}

// devices describes the block devices: which there are and which other
// snapshots than the root's they start with.
func devices(mappings []types.BlockDeviceMapping, root string) string {
	var list []string
	for _, m := range mappings {
		text := aws.ToString(m.DeviceName)
		if m.Ebs != nil {
			if snapshot := aws.ToString(m.Ebs.SnapshotId); snapshot != "" && snapshot != root {
				text += "=" + snapshot
			}
		} else {
			text += "=" + cmp.Or(aws.ToString(m.VirtualName), "none")
		}
		list = append(list, text)
	}
	slices.Sort(list)
	return strings.Join(list, ",")
}

// uefiData compares the UEFI variables, which only the owner of an image can
// read.
func (v verifier) uefiData(ctx context.Context, id string, compare func(name, got, want string)) error {
	got, err := v.aws.images.uefiData(ctx, id)
	if err != nil && isRefusal(err) {
		v.result.Notes = append(v.result.Notes, describe("UefiData is not compared", err).Error())
		return nil
	}
	if err != nil {
		return describe("read the UefiData of "+id, err)
	}
	want := aws.ToString(v.options.Register.UefiData)
	brief := func(text string) string {
		data, err := base64.StdEncoding.DecodeString(text)
		switch {
		case text == "":
			return ""
		case err != nil:
			return text // differs from all that EC2 accepts
		}
		return fmt.Sprintf("%d bytes, sha256:%x", len(data), sha256.Sum256(data))
	}
	compare("UefiData", brief(got), brief(want))
	return nil
}

// snapshot compares the blocks.
func (v verifier) snapshot(ctx context.Context) error {
	id := v.result.Snapshot
	v.step("listing the blocks of %s", id)
	found, tokens, err := v.aws.readable(ctx, id)
	if err != nil {
		return err
	}
	// ImportSnapshot converts a whole disk. Only what the EBS direct APIs left
	// out of an encrypted snapshot is random.
	random := aws.ToBool(found.Encrypted) && !isImported(found)
	different, err := v.compare(ctx, tokens, random)
	if err != nil {
		return err
	}
	v.result.Different = len(different)
	for _, b := range different[:min(len(different), maxDifferences)] {
		if err := v.locate(ctx, &b, tokens); err != nil {
			return err
		}
		v.result.Differences = append(v.result.Differences, b)
	}
	return nil
}

// isImported reports whether ImportSnapshot or ImportImage made a snapshot. It
// has no other mark than this description.
func isImported(s *types.Snapshot) bool {
	return strings.HasPrefix(aws.ToString(s.Description), "Created by AWS-VMImport service for ")
}

// compare reads the blocks of the snapshot and returns those that differ, in
// order. The blocks that it does not list read as random data or as zeros.
func (v verifier) compare(ctx context.Context, tokens map[int32]string, random bool) ([]BlockDifference, error) {
	d, m := v.disk, v.options.Monitor
	different := v.unlisted(tokens, random)
	m.Blocks.Add(int64(len(tokens)))
	v.result.Blocks = len(different) + len(tokens)
	v.step("reading %d blocks", len(tokens))
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(min(64, v.options.Workers))
	for _, index := range slices.Sorted(maps.Keys(tokens)) {
		group.Go(func() error {
			sum, err := v.aws.blocks.sum(ctx, v.result.Snapshot, index, tokens[index], nil)
			if err != nil {
				return describe(fmt.Sprintf("read block %d of %s", index, v.result.Snapshot), err)
			}
			m.Written.Add(1)
			want := blockOf(d, index).Sum
			if sum == want {
				return nil
			}
			kind := BlockChanged
			switch disk.Zero {
			case want:
				kind = BlockExtra
			case sum:
				kind = BlockMissing
			}
			mu.Lock()
			defer mu.Unlock()
			different = append(different, BlockDifference{Index: index, Kind: kind})
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	slices.SortFunc(different, func(a, b BlockDifference) int { return cmp.Compare(a.Index, b.Index) })
	return different, nil
}

// unlisted returns the blocks that the snapshot must have but does not list.
func (v verifier) unlisted(tokens map[int32]string, random bool) []BlockDifference {
	d := v.disk
	var missing []BlockDifference
	for index := range d.Count() {
		if _, listed := tokens[index]; listed {
			continue
		}
		if blockOf(d, index).Sum != disk.Zero {
			missing = append(missing, BlockDifference{Index: index, Kind: BlockMissing})
		} else if random && !d.Free(index) {
			missing = append(missing, BlockDifference{Index: index, Kind: BlockUnwritten})
		}
	}
	return missing
}

// locate finds the first byte in a block that differs, and what it belongs to.
func (v verifier) locate(ctx context.Context, b *BlockDifference, tokens map[int32]string) error {
	b.Offset = int64(b.Index) * disk.BlockSize
	if v.disk.MapOnly() {
		return nil
	}
	want, got := new([disk.BlockSize]byte), bytes.NewBuffer(make([]byte, disk.BlockSize))
	if err := v.disk.ReadBlock(b.Index, want); err != nil {
		return &Error{ClassDisk, fmt.Errorf("%s: %w", v.disk.Name, err)}
	}
	if token, listed := tokens[b.Index]; listed {
		if _, err := v.aws.blocks.sum(ctx, v.result.Snapshot, b.Index, token, got); err != nil {
			return describe(fmt.Sprintf("read block %d of %s", b.Index, v.result.Snapshot), err)
		}
	}
	first := -1
	for i, c := range got.Bytes() {
		if c == want[i] {
			continue
		}
		if first < 0 {
			first = i
		}
		b.Bytes++
	}
	b.Offset += int64(max(first, 0))
	b.Place = v.disk.Place(b.Offset)
	return nil
}
