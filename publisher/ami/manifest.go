package ami

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/slipway-build/slipway/publisher/disk"
)

// A manifest lists the digests of a snapshot's blocks, so that the next upload
// does not have to read them. It is stored in tags of the snapshot: EBS creates
// and deletes it with the snapshot, it is free, and whoever may describe the
// parent can read it. A manifest that does not fit into the tags is stored in a
// file in the state directory instead, which only later runs on this machine
// find.
//
// Format: a byte with version 1, then runs of blocks that are not zero. Each
// run consists of two unsigned varints, the number of blocks to skip and the
// number of blocks in the run, and the first 12 bytes of each block's digest.
// The whole is encoded in base64 without padding and split into tags of 256
// characters, slipway:blocks:00 and so on. 96 bits protect against collisions
// by chance, and whoever could construct one could change the disk as well.
const (
	manifestVersion = 1
	shortSum        = 12
	tagLength       = 256
	maxTags         = 50
	ownTags         = 5  // Name and those of [target.tags]
	spareTags       = 10 // for programs of the account that tag resources
)

// short is the start of a block's digest.
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
	broken := errors.New("invalid manifest in its tags")
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

// manifestTags returns the tags of the disk's manifest, or nil if it needs more
// than most tags.
func manifestTags(d *disk.Disk, most int) []types.Tag {
	if len(d.Blocks)*shortSum > most*tagLength { // skips the encoding of large disks
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

// manifestAge is the age at which the file of a manifest is removed. The
// snapshot is probably gone by then.
const manifestAge = 90 * 24 * time.Hour

// manifestFile returns the path of the file with a snapshot's manifest.
func (o *Options) manifestFile(snapshot string) string {
	return filepath.Join(o.State, "manifests", filepath.Base(snapshot))
}

// saveManifest writes the file with a snapshot's manifest, and removes old ones.
func (o *Options) saveManifest(snapshot string, d *disk.Disk) error {
	path := o.manifestFile(snapshot)
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, file := range files {
		if info, err := file.Info(); err == nil && time.Since(info.ModTime()) > manifestAge {
			_ = os.Remove(filepath.Join(dir, file.Name())) // the next run tries again
		}
	}
	// A run that is killed must not leave a part of the file under its name.
	part := path + ".part"
	if err := os.WriteFile(part, encodeManifest(d.Blocks), 0o600); err != nil {
		return err
	}
	return os.Rename(part, path)
}

// loadManifest reads the file with a snapshot's manifest. It returns nil if
// there is none.
func (o *Options) loadManifest(snapshot string) (map[int32]short, error) {
	data, err := os.ReadFile(o.manifestFile(snapshot))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return decodeManifest(data)
}

// manifestOf returns the manifest of a snapshot, or nil if it has none.
func manifestOf(tags []types.Tag) (map[int32]short, error) {
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
