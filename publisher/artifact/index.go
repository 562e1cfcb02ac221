package artifact

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/slipway-build/slipway/publisher/disk"
)

// indexVersion is the version of the format of [Index].
const indexVersion = 1

// maxIndex limits an index, in bytes. It suffices for 128 GiB of data.
const maxIndex = 32 << 20

// maxFrame limits the frame of a block, in bytes. zstd stores a block that does
// not compress, in pieces of up to 128 KiB with 3 bytes each, after a header of
// up to 18 bytes and before a checksum of 4.
const maxFrame = blockSize + 64

// An Index says where the blocks of a disk are in the layer of its artifact.
type Index struct {
	Version int     `json:"version"`
	Size    int64   `json:"size"`   // of the disk, in bytes
	Blocks  []Frame `json:"blocks"` // those that are not all zeros, in order
	// Free are the parts of the disk whose content does not matter, because no
	// program reads them before it writes them. They are zeros in the artifact.
	Free []Extent `json:"free,omitempty"`
}

// A Frame is a block of 512 KiB in the layer. The last block of a disk may be
// shorter.
type Frame struct {
	Block  int32 `json:"block"`  // number, from 0
	Offset int64 `json:"offset"` // in the layer, in bytes
	Length int32 `json:"length"` // in the layer, in bytes
	SHA256 Sum   `json:"sha256"` // of the block, padded with zeros to 512 KiB
}

// An Extent is a part of a disk.
type Extent struct {
	Offset int64 `json:"offset"` // bytes
	Length int64 `json:"length"` // bytes
}

// A Sum is a SHA-256 digest, in lowercase hexadecimal in JSON.
type Sum disk.Sum

// MarshalText implements [encoding.TextMarshaler].
func (s Sum) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, s[:]), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (s *Sum) UnmarshalText(text []byte) error {
	if len(text) != 2*len(s) || !bytes.Equal(text, bytes.ToLower(text)) {
		return fmt.Errorf("invalid SHA-256 %.70q", text)
	}
	_, err := hex.Decode(s[:], text)
	return err
}

// readIndex decodes an index for a layer of a number of bytes.
func readIndex(data []byte, layer int64) (*Index, error) {
	x := new(Index)
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(x); err != nil {
		return nil, fmt.Errorf("index of the disk: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("index of the disk: there is more after the JSON object")
	}
	if err := x.check(layer); err != nil {
		return nil, fmt.Errorf("index of the disk: %w", err)
	}
	return x, nil
}

// check returns an error unless the index is valid for a layer of a number of
// bytes.
func (x *Index) check(layer int64) error {
	switch {
	case x.Version != indexVersion:
		return fmt.Errorf("unknown version %d: this program reads version %d", x.Version, indexVersion)
	case x.Size <= 0 || x.Size > disk.MaxSize:
		return fmt.Errorf("invalid size of %d bytes", x.Size)
	}
	next, end := int32(0), int64(0)
	for _, f := range x.Blocks {
		switch {
		case f.Block < next:
			return fmt.Errorf("block %d follows block %d", f.Block, next-1)
		case int64(f.Block) > (x.Size-1)/blockSize:
			return fmt.Errorf("block %d is after the end of the disk", f.Block)
		case f.Length <= 0 || f.Length > maxFrame:
			return fmt.Errorf("block %d has an invalid length of %d bytes", f.Block, f.Length)
		case f.Offset < end || f.Offset > layer-int64(f.Length):
			return fmt.Errorf("block %d is at the invalid offset %d", f.Block, f.Offset)
		case f.SHA256 == Sum(disk.Zero):
			return fmt.Errorf("block %d is all zeros", f.Block)
		}
		next, end = f.Block+1, f.Offset+int64(f.Length)
	}
	return x.checkFree()
}

// checkFree returns an error unless the free extents are in order, are on the
// disk and have no data.
func (x *Index) checkFree() error {
	end := int64(0)
	for _, e := range x.Free {
		if e.Offset < end || e.Length <= 0 || e.Length > x.Size-e.Offset {
			return fmt.Errorf("invalid free extent of %d bytes at %d", e.Length, e.Offset)
		}
		end = e.Offset + e.Length
		// Blocks that are entirely in the extent.
		first, after := (e.Offset+blockSize-1)/blockSize, end/blockSize
		i, _ := slices.BinarySearchFunc(x.Blocks, first, func(f Frame, block int64) int { return cmp.Compare(int64(f.Block), block) })
		if i < len(x.Blocks) && int64(x.Blocks[i].Block) < after {
			return fmt.Errorf("block %d has data in the free extent at %d", x.Blocks[i].Block, e.Offset)
		}
	}
	return nil
}

// frame returns the frame of a block, or nil if the block is all zeros.
func (x *Index) frame(block int32) *Frame {
	i, found := slices.BinarySearchFunc(x.Blocks, block, func(f Frame, block int32) int { return cmp.Compare(f.Block, block) })
	if !found {
		return nil
	}
	return &x.Blocks[i]
}

// count returns the number of blocks of the disk.
func (x *Index) count() int32 { return int32((x.Size + blockSize - 1) / blockSize) }

// length returns the number of bytes of a block: the last one may be short.
func (x *Index) length(block int32) int {
	return int(min(blockSize, x.Size-int64(block)*blockSize))
}

// blocks returns the digests of the blocks.
func (x *Index) blocks() []disk.Block {
	out := make([]disk.Block, 0, len(x.Blocks))
	for _, f := range x.Blocks {
		out = append(out, disk.Block{Index: f.Block, Sum: disk.Sum(f.SHA256)})
	}
	return out
}
