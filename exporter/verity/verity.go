// Package verity writes, reads and verifies hash trees of dm-verity, with which the
// kernel verifies a read-only file system block by block, whenever it reads one.
//
// Formats: Linux, Documentation/admin-guide/device-mapper/verity.rst, hash type 1,
// and the superblock of cryptsetup (lib/verity/verity.c). Numbers are
// little-endian. Layout in blocks of 4 KiB:
//
//	0   superblock: the number of data blocks and the salt
//	1…  levels of the tree, the root first. A block of a level has the hashes of
//	    128 blocks of the level below, and the last level those of the data
//
// A hash is the SHA-256 of the salt and a block. The root hash, that of the first
// block of the tree, identifies all data. The superblock is not part of it: a
// changed one makes the hashes wrong.
package verity

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/slipway-build/slipway/exporter/gpt"
	"github.com/slipway-build/slipway/exporter/sparse"
)

const (
	// BlockSize is the size of the blocks of data and of hashes in bytes. Others
	// are not supported.
	BlockSize = 4096

	// CmdlineKey is the kernel argument with the root hash, as of systemd's
	// systemd-veritysetup-generator(8).
	CmdlineKey = "roothash"

	// DigestModule is the alias of the kernel modules with faster implementations
	// of the hash algorithm than the one that is built in.
	DigestModule = "crypto-sha256"

	// Reaction is what the kernel does when it reads a block that does not belong
	// to the root hash. An init that sets up dm-verity contains this text, by which
	// the exporter recognizes it.
	Reaction = "panic_on_corruption"

	algorithm = "sha256"
	signature = "verity\x00\x00"
	version   = 1
	hashType  = 1

	superblockSize = 512
	maxSalt        = 256
	treeBlock      = 1 // the first block of the tree

	hashesPerBlock = BlockSize / sha256.Size
)

// Errors.
var (
	// ErrFormat is the error for something else than a supported superblock.
	ErrFormat = errors.New("unsupported dm-verity superblock")
	// ErrMismatch is the error for data or hashes that differ from the root hash.
	ErrMismatch = errors.New("dm-verity hash mismatch")
)

// salt is the same for all trees, so that blocks that two versions of a machine
// share have the same hashes, and a republished disk sends only those that
// changed. It keeps hashes of blocks apart from those of other programs. The
// security of dm-verity rests on SHA-256, not on the salt.
var salt = sha256.Sum256([]byte("slipway dm-verity salt"))

// A Hash is a root hash.
type Hash [sha256.Size]byte

// ParseHash parses the text form of a root hash.
func ParseHash(text string) (Hash, error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != sha256.Size {
		return Hash{}, fmt.Errorf("%q is not a root hash: it must have %d hexadecimal digits", text, 2*sha256.Size)
	}
	return Hash(b), nil
}

// String returns the root hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// PartitionIDs returns the IDs of the partitions with the data and with the tree:
// the first and the last 128 bits of the root hash (UAPI.2 Discoverable Partitions
// Specification, "Defined Partition Type UUIDs").
func (h Hash) PartitionIDs() (data, tree gpt.GUID) {
	return gpt.FromUUID([16]byte(h[:16])), gpt.FromUUID([16]byte(h[16:]))
}

// A Superblock describes a tree.
type Superblock struct {
	UUID       [16]byte
	DataBlocks uint64
	Salt       []byte // up to 256 bytes
}

// New returns the root hash of data, and the superblock and the tree as the content
// of a partition. It reads the data on all processors. Zeros follow the data up to a
// multiple of BlockSize.
func New(data sparse.Content) (Hash, sparse.Content, error) {
	if data.Size == 0 {
		return Hash{}, sparse.Content{}, errors.New("dm-verity: there is no data")
	}
	data = data.Pad(BlockSize)
	s := Superblock{DataBlocks: uint64(data.Size / BlockSize), Salt: salt[:]}
	tree := make([]byte, s.treeBlocks()*BlockSize)
	root, err := s.walk(data, bytes.NewReader(tree), func(block uint64, hashes []byte) error {
		copy(tree[block*BlockSize:], hashes)
		return nil
	})
	if err != nil {
		return Hash{}, sparse.Content{}, err
	}
	// A UUID of version 8, RFC 9562.
	s.UUID = [16]byte(root[:16])
	s.UUID[6], s.UUID[8] = s.UUID[6]&0x0f|0x80, s.UUID[8]&0x3f|0x80
	return root, sparse.Concat(sparse.Bytes(s.encode()).Pad(BlockSize), sparse.Bytes(tree)), nil
}

func (s Superblock) encode() []byte {
	le := binary.LittleEndian
	b := append(make([]byte, 0, superblockSize), signature...)
	b = le.AppendUint32(b, version)
	b = le.AppendUint32(b, hashType)
	b = append(b, s.UUID[:]...)
	b = append(b, algorithm...)
	b = append(b, make([]byte, 64-len(b))...)
	b = le.AppendUint32(b, BlockSize)
	b = le.AppendUint32(b, BlockSize)
	b = le.AppendUint64(b, s.DataBlocks)
	b = le.AppendUint16(b, uint16(len(s.Salt)))
	b = append(b, make([]byte, 6)...)
	b = append(b, s.Salt...)
	return append(b, make([]byte, superblockSize-len(b))...)
}

// maxDataBlocks limits trees from strangers: the data has less than 2^63 bytes.
const maxDataBlocks = 1<<51 - 1

// Read reads the superblock of a partition with a tree. The error wraps ErrFormat
// if there is none, or one with other parameters than New writes. Salt and number
// of blocks may differ.
func Read(r io.ReaderAt) (Superblock, error) {
	b := make([]byte, superblockSize)
	if n, err := r.ReadAt(b, 0); n < len(b) {
		if err == io.EOF {
			return Superblock{}, fmt.Errorf("%w: it has %d bytes", ErrFormat, n)
		}
		return Superblock{}, err
	}
	le := binary.LittleEndian
	name, _, _ := bytes.Cut(b[32:64], []byte{0})
	s := Superblock{UUID: [16]byte(b[16:]), DataBlocks: le.Uint64(b[72:])}
	saltSize := le.Uint16(b[80:])
	switch {
	case string(b[:8]) != signature:
		return s, fmt.Errorf("%w: the signature is missing", ErrFormat)
	case le.Uint32(b[8:]) != version || le.Uint32(b[12:]) != hashType:
		return s, fmt.Errorf("%w: version %d, hash type %d", ErrFormat, le.Uint32(b[8:]), le.Uint32(b[12:]))
	case string(name) != algorithm:
		return s, fmt.Errorf("%w: hash algorithm %q", ErrFormat, name)
	case le.Uint32(b[64:]) != BlockSize || le.Uint32(b[68:]) != BlockSize:
		return s, fmt.Errorf("%w: blocks of %d and %d bytes", ErrFormat, le.Uint32(b[64:]), le.Uint32(b[68:]))
	case s.DataBlocks == 0 || s.DataBlocks > maxDataBlocks:
		return s, fmt.Errorf("%w: %d data blocks", ErrFormat, s.DataBlocks)
	case saltSize > maxSalt:
		return s, fmt.Errorf("%w: a salt of %d bytes", ErrFormat, saltSize)
	}
	s.Salt = b[88 : 88+int(saltSize)]
	return s, nil
}

// levels returns the numbers of blocks of the levels, the last one first. There is
// none for data of one block.
func (s Superblock) levels() []uint64 {
	var levels []uint64
	for n := s.DataBlocks; n > 1; {
		n = (n + hashesPerBlock - 1) / hashesPerBlock
		levels = append(levels, n)
	}
	return levels
}

// treeBlocks returns the number of blocks of the tree.
func (s Superblock) treeBlocks() uint64 {
	var sum uint64
	for _, n := range s.levels() {
		sum += n
	}
	return sum
}

// DataSize returns the size of the data in bytes.
func (s Superblock) DataSize() int64 { return int64(s.DataBlocks) * BlockSize }

// TreeSize returns the size of the superblock and the tree in bytes.
func (s Superblock) TreeSize() int64 { return int64(treeBlock+s.treeBlocks()) * BlockSize }

// walk computes the hashes of data, level by level. It calls use with each block of
// the tree and its number, from several goroutines, and returns the root hash. It
// reads the blocks of a level from tree, where use has written or verified them.
func (s Superblock) walk(data, tree io.ReaderAt, use func(block uint64, hashes []byte) error) (Hash, error) {
	below, count := data, s.DataBlocks
	for i, blocks := range s.levels() {
		first := s.levelStart(i)
		err := s.hashLevel(below, count, func(n uint64, hashes []byte) error { return use(first+n, hashes) })
		if err != nil {
			return Hash{}, err
		}
		below, count = io.NewSectionReader(tree, int64(first)*BlockSize, int64(blocks)*BlockSize), blocks
	}
	top := make([]byte, BlockSize)
	if err := readBlocks(below, top, 0); err != nil {
		return Hash{}, err
	}
	return s.hash(top), nil
}

// levelStart returns the number of the first block of a level in the tree. Level 0
// has the hashes of the data.
func (s Superblock) levelStart(level int) uint64 {
	var start uint64
	for _, n := range s.levels()[level+1:] {
		start += n
	}
	return start
}

// hashLevel computes a level above blocks on all processors.
func (s Superblock) hashLevel(below io.ReaderAt, blocks uint64, use func(n uint64, hashes []byte) error) error {
	var group errgroup.Group
	var next atomic.Uint64
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error {
			input, hashes := make([]byte, hashesPerBlock*BlockSize), make([]byte, BlockSize)
			h := sha256.New()
			for n := next.Add(1) - 1; n*hashesPerBlock < blocks; n = next.Add(1) - 1 {
				first := n * hashesPerBlock
				input := input[:min(hashesPerBlock, blocks-first)*BlockSize]
				if err := readBlocks(below, input, first); err != nil {
					return err
				}
				clear(hashes)
				at := 0
				for block := range slices.Chunk(input, BlockSize) {
					h.Reset()
					h.Write(s.Salt)
					h.Write(block)
					h.Sum(hashes[at:at])
					at += sha256.Size
				}
				if err := use(n, hashes); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// readBlocks reads whole blocks from a block on.
func readBlocks(r io.ReaderAt, b []byte, first uint64) error {
	at := int64(first) * BlockSize
	if n, err := r.ReadAt(b, at); n < len(b) {
		return fmt.Errorf("dm-verity: byte %d: %w", at+int64(n), err)
	}
	return nil
}

func (s Superblock) hash(block []byte) Hash {
	return sha256.Sum256(append(slices.Clone(s.Salt), block...))
}

// CheckRoot verifies the first block of a tree in a partition, without reading the
// data. The error wraps ErrMismatch if its hash is not the root hash.
func (s Superblock) CheckRoot(tree io.ReaderAt, root Hash) error {
	if s.DataBlocks == 1 {
		return nil // the data is the only block
	}
	block := make([]byte, BlockSize)
	if err := readBlocks(tree, block, treeBlock); err != nil {
		return err
	}
	if got := s.hash(block); got != root {
		return fmt.Errorf("%w: the root hash of the tree is %s, not %s", ErrMismatch, got, root)
	}
	return nil
}

// Verify verifies all data and the whole tree in a partition, on all processors. The
// error wraps ErrMismatch if they do not belong to the root hash.
func (s Superblock) Verify(data, partition *io.SectionReader, root Hash) error {
	if s.DataSize() > data.Size() || s.TreeSize() > partition.Size() {
		return fmt.Errorf("%w: %d data blocks do not fit into the partitions", ErrFormat, s.DataBlocks)
	}
	tree := io.NewSectionReader(partition, treeBlock*BlockSize, int64(s.treeBlocks())*BlockSize)
	got, err := s.walk(data, tree, func(block uint64, hashes []byte) error {
		stored := make([]byte, BlockSize)
		if err := readBlocks(tree, stored, block); err != nil {
			return err
		}
		if !bytes.Equal(stored, hashes) {
			return fmt.Errorf("%w: block %d of the tree differs from what it is the hash of", ErrMismatch, block)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if got != root {
		return fmt.Errorf("%w: the root hash of the data is %s, not %s", ErrMismatch, got, root)
	}
	return nil
}

// Table returns the parameters of the kernel's target "verity" for block devices with
// data and tree, with Reaction (Linux,
// Documentation/admin-guide/device-mapper/verity.rst, "Construction Parameters").
func (s Superblock) Table(data, tree string, root Hash) string {
	salt := "-"
	if len(s.Salt) > 0 {
		salt = hex.EncodeToString(s.Salt)
	}
	return fmt.Sprintf("%d %s %s %d %d %d %d %s %s %s 1 %s", hashType, data, tree, BlockSize, BlockSize, s.DataBlocks, treeBlock, algorithm, root, salt, Reaction)
}
