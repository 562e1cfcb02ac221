package awstest

import (
	"crypto/sha256"
	"io"
	"os"
	"sync"
)

// BlockSize is the size of an EBS block in bytes.
const BlockSize = 512 << 10

type digest = [sha256.Size]byte

var zeroDigest = sha256.Sum256(make([]byte, BlockSize))

// blobs stores blocks by their digest in one anonymous file: equal blocks once,
// blocks of zeros not at all. It is safe for concurrent use.
type blobs struct {
	mu    sync.Mutex
	file  *os.File
	slots int64   // number of slots in the file
	free  []int64 // unused slots
	known map[digest]*blob
}

type blob struct {
	slot  int64
	users int
	write sync.Once
	err   error
}

func newBlobs() *blobs { return &blobs{known: map[digest]*blob{}} }

// anonymous returns a new file without a name, which disappears when it is
// closed.
func anonymous() (*os.File, error) {
	f, err := os.CreateTemp("", "awstest-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// add stores a block, or adds a user to a stored one.
func (b *blobs) add(sum digest, data []byte) error {
	if sum == zeroDigest {
		return nil
	}
	b.mu.Lock()
	if b.file == nil {
		var err error
		if b.file, err = anonymous(); err != nil {
			b.mu.Unlock()
			return err
		}
	}
	entry := b.known[sum]
	if entry == nil {
		entry = &blob{}
		if n := len(b.free); n > 0 {
			entry.slot, b.free = b.free[n-1], b.free[:n-1]
		} else {
			entry.slot = b.slots
			b.slots++
		}
		b.known[sum] = entry
	}
	entry.users++
	b.mu.Unlock()
	entry.write.Do(func() { _, entry.err = b.file.WriteAt(data, entry.slot*BlockSize) })
	return entry.err
}

// use adds a user to a stored block.
func (b *blobs) use(sum digest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if entry := b.known[sum]; entry != nil {
		entry.users++
	}
}

// release removes a user of a block, and the block with its last user.
func (b *blobs) release(sum digest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	entry := b.known[sum]
	if entry == nil {
		return
	}
	if entry.users--; entry.users == 0 {
		delete(b.known, sum)
		b.free = append(b.free, entry.slot)
	}
}

// readAt reads a part of a stored block into p.
func (b *blobs) readAt(sum digest, p []byte, off int64) error {
	if sum == zeroDigest {
		clear(p)
		return nil
	}
	b.mu.Lock()
	entry := b.known[sum]
	b.mu.Unlock()
	if entry == nil {
		return io.ErrUnexpectedEOF
	}
	_, err := b.file.ReadAt(p, entry.slot*BlockSize+off)
	return err
}

func (b *blobs) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.file != nil {
		b.file.Close()
	}
}
