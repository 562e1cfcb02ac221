package ami

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/slipway-build/slipway/publisher/disk"
)

// A manifest lists the digests of a snapshot's blocks, so that the next upload
// does not have to read them. It is stored in tags of the snapshot: EBS creates
// and deletes it with the snapshot, it is free, and whoever may describe the
// parent can read it.
//
// If the digests of all blocks do not fit into the tags, the manifest has the
// digests of groups of blocks, in the smallest groups that fit: 2, 4, 8 and so on.
// The next upload reads the blocks of the groups that differ.
//
// Format: a byte with the version. Version 1 has groups of one block, and the
// digest of a group is that of its block. In version 2, the number of blocks in a
// group follows as an unsigned varint, and the digest of a group is the SHA-256
// of the digests of its blocks; blocks after the end of the disk are zero. Then
// follow runs of groups that are not all zero. Each run consists of two unsigned
// varints, the number of groups to skip and the number of groups in the run, and
// the first 12 bytes of each group's digest. The whole is encoded in base64
// without padding and split into tags of 256 characters, slipway:blocks:00 and so
// on. 96 bits protect against collisions by chance, and whoever could construct
// one could change the disk as well.
const (
	manifestBlocks = 1 // version of a manifest of blocks
	manifestGroups = 2 // version of a manifest of groups
	maxGroup       = disk.MaxSize / disk.BlockSize
	shortSum       = 12
	tagLength      = 256
	maxTags        = 50
	ownTags        = 5  // Name and those of [target.tags]
	spareTags      = 10 // for programs of the account that tag resources
)

// short is the start of a block's digest.
type short [shortSum]byte

func shorten(sum disk.Sum) short { return short(sum[:shortSum]) }

// A manifest is a decoded manifest.
type manifest struct {
	group  int32           // number of blocks in a group
	groups map[int32]short // digests of the groups, by their numbers
}

// groupsOf returns the digests of groups of n blocks.
func groupsOf(blocks []disk.Block, n int32) []disk.Block {
	if n == 1 {
		return blocks
	}
	var groups []disk.Block
	for len(blocks) > 0 {
		number, h := blocks[0].Index/n, sha256.New()
		for i := range n {
			sum := disk.Zero
			if len(blocks) > 0 && blocks[0].Index == number*n+i {
				sum, blocks = blocks[0].Sum, blocks[1:]
			}
			h.Write(sum[:])
		}
		groups = append(groups, disk.Block{Index: number, Sum: disk.Sum(h.Sum(nil))})
	}
	return groups
}

// encodeManifest encodes the digests of groups of n blocks.
func encodeManifest(blocks []disk.Block, n int32) []byte {
	out := []byte{manifestBlocks}
	if n > 1 {
		out = binary.AppendUvarint([]byte{manifestGroups}, uint64(n))
	}
	blocks = groupsOf(blocks, n)
	next := int32(0)
	for len(blocks) > 0 {
		n := 1
		for n < len(blocks) && blocks[n].Index == blocks[n-1].Index+1 {
			n++
		}
		out = binary.AppendUvarint(out, uint64(blocks[0].Index-next))
		out = binary.AppendUvarint(out, uint64(n))
		for _, block := range blocks[:n] {
			out = append(out, block.Sum[:shortSum]...)
		}
		next = blocks[n-1].Index + 1
		blocks = blocks[n:]
	}
	return out
}

func decodeManifest(in []byte) (*manifest, error) {
	broken := errors.New("invalid manifest in its tags")
	if len(in) == 0 || in[0] != manifestBlocks && in[0] != manifestGroups {
		return nil, broken
	}
	m := &manifest{group: 1, groups: map[int32]short{}}
	version, in := in[0], in[1:]
	if version == manifestGroups {
		group, n := binary.Uvarint(in)
		if n <= 0 || group < 2 || group > maxGroup {
			return nil, broken
		}
		m.group, in = int32(group), in[n:]
	}
	at := uint64(0)
	for len(in) > 0 {
		skip, n := binary.Uvarint(in)
		if n <= 0 {
			return nil, broken
		}
		in = in[n:]
		count, n := binary.Uvarint(in)
		if n <= 0 || count > uint64(len(in))/shortSum || skip > disk.MaxSize/disk.BlockSize {
			return nil, broken
		}
		in, at = in[n:], at+skip
		if uint64(len(in)) < count*shortSum {
			return nil, broken
		}
		for range count {
			m.groups[int32(at)] = short(in[:shortSum])
			in, at = in[shortSum:], at+1
		}
	}
	return m, nil
}

// manifestTags returns the tags of the disk's manifest: at most most, or nil if
// there is no room at all.
func manifestTags(d *disk.Disk, most int) []types.Tag {
	text := ""
	for n := int32(1); ; n *= 2 {
		if n > maxGroup {
			return nil
		}
		if len(d.Blocks)*shortSum > most*tagLength*int(n) { // cannot fit
			continue
		}
		text = base64.RawStdEncoding.EncodeToString(encodeManifest(d.Blocks, n))
		if len(text) <= most*tagLength {
			break
		}
	}
	var tags []types.Tag
	for len(text) > 0 {
		n := min(len(text), tagLength)
		tags = append(tags, types.Tag{Key: aws.String(fmt.Sprintf("%s%02d", tagBlocks, len(tags))), Value: aws.String(text[:n])})
		text = text[n:]
	}
	return tags
}

// manifestOf returns the manifest of a snapshot, or nil if it has none.
func manifestOf(tags []types.Tag) (*manifest, error) {
	text := ""
	for i := range maxTags {
		piece := tagValue(tags, fmt.Sprintf("%s%02d", tagBlocks, i))
		if piece == "" {
			break
		}
		text += piece
	}
	if text == "" {
		return nil, nil
	}
	data, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("invalid manifest in its tags: %w", err)
	}
	return decodeManifest(data)
}
