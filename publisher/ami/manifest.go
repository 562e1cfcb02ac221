package ami

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/slipway-build/slipway/publisher/disk"
)

// A manifest tells which block of a snapshot has which content, so that the next
// upload need not read it. It is kept in the tags of the snapshot itself: there
// it is made and removed together with it, it costs nothing, and whoever may
// look for the parent already has it. Disks with too many blocks for the tags
// have none.
//
// Format: version 1, then runs of blocks that are not zero: how many blocks to
// skip and how many follow, as unsigned varints, and the first 12 bytes of the
// digest of each of them. All this in base64 without padding, in tags of 256
// characters, slipway:blocks:00 and on. 96 bits are enough against chance and
// against anybody who could change a disk of ours.
const (
	manifestVersion = 1
	shortSum        = 12
	tagLength       = 256
	maxTags         = 50
)

type short [shortSum]byte

func shorten(sum disk.Sum) short { return short(sum[:shortSum]) }

func encodeManifest(blocks []disk.Block) []byte {
	out := []byte{manifestVersion}
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

func decodeManifest(in []byte) (map[int32]short, error) {
	broken := errors.New("the manifest in its tags is broken")
	if len(in) == 0 || in[0] != manifestVersion {
		return nil, broken
	}
	blocks, at := map[int32]short{}, uint64(0)
	for in = in[1:]; len(in) > 0; {
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
			blocks[int32(at)] = short(in[:shortSum])
			in, at = in[shortSum:], at+1
		}
	}
	return blocks, nil
}

// manifestTags returns at most most tags, and none if the manifest needs more.
func manifestTags(d *disk.Disk, most int) []types.Tag {
	if len(d.Blocks)*shortSum > most*tagLength { // far too many
		return nil
	}
	text := base64.RawStdEncoding.EncodeToString(encodeManifest(d.Blocks))
	if len(text) > most*tagLength {
		return nil
	}
	var tags []types.Tag
	for len(text) > 0 {
		n := min(len(text), tagLength)
		tags = append(tags, types.Tag{Key: aws.String(fmt.Sprintf("%s%02d", tagBlocks, len(tags))), Value: aws.String(text[:n])})
		text = text[n:]
	}
	return tags
}

// manifestOf reads the manifest of a snapshot; nil if it has none.
func manifestOf(tags []types.Tag) (map[int32]short, error) {
	text := ""
	for i := range maxTags {
		piece := tag(tags, fmt.Sprintf("%s%02d", tagBlocks, i))
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
		return nil, fmt.Errorf("the manifest in its tags is broken: %w", err)
	}
	return decodeManifest(data)
}
