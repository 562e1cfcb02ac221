package ami

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ebs"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/gofrs/flock"
)

// A record is what one run in one region has done and is about to do. Requests
// that create a resource are recorded with their client tokens before they are
// sent. Sending one again returns the resource even if the first response was
// lost.
type record struct {
	Run      string                   `json:",omitempty"` // random; client tokens derive from it
	Start    *ebs.StartSnapshotInput  `json:",omitempty"`
	Object   string                   `json:",omitempty"` // key in S3
	Import   *ec2.ImportSnapshotInput `json:",omitempty"`
	Task     string                   `json:",omitempty"`
	Copy     *ec2.CopyImageInput      `json:",omitempty"`
	Snapshot string                   `json:",omitempty"` // that this run made
	KMSKey   string                   `json:",omitempty"`
	Partial  bool                     `json:",omitempty"` // Snapshot is encrypted: zero blocks must be written
	Complete bool                     `json:",omitempty"` // CompleteSnapshot was sent
	Register bool                     `json:",omitempty"` // RegisterImage was sent
	Image    string                   `json:",omitempty"` // that this run made
	Protect  bool                     `json:",omitempty"` // EnableImageDeregistrationProtection was sent
	// Launch is the instance that tests the image.
	Launch *launched `json:",omitempty"`
	Tested string    `json:",omitempty"` // the image that passed the test
	// Parameter is the state of the SSM parameter before this run set it.
	Parameter *parameter `json:",omitempty"`
	Block     *int32     `json:",omitempty"` // that EBS has acknowledged
}

// A journal is a record in a file, with one change in JSON per line. One
// process at a time holds its lock. It survives when that process is killed.
type journal struct {
	record
	written map[int32]bool // blocks that EBS has acknowledged

	mu   sync.Mutex
	lock *flock.Flock
	file *os.File
}

// openJournal opens or creates the journal with a name. If another process
// holds it, openJournal calls busy and waits.
func openJournal(ctx context.Context, dir, name string, busy func()) (*journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fail(ClassOther, "create the state directory: %w; choose another one with --state", err)
	}
	path := filepath.Join(dir, name+".jsonl")
	for {
		lock := flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o600))
		locked, err := lock.TryLock()
		if err == nil && !locked {
			busy()
			_, err = lock.TryLockContext(ctx, 200*time.Millisecond)
		}
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			lock.Close()
			return nil, err
		}
		j := &journal{lock: lock, file: file, written: map[int32]bool{}}
		// The previous owner may have removed the file in the meantime.
		held, err2 := lock.Stat()
		if now, err3 := file.Stat(); err != nil || err2 != nil || err3 != nil || !os.SameFile(now, held) {
			j.close(false)
			continue
		}
		if err := j.load(); err != nil {
			j.close(false)
			return nil, fmt.Errorf("read %s: %w; remove it to start over, then run slipway-publish aws gc", path, err)
		}
		return j, nil
	}
}

func (j *journal) load() error {
	data, err := io.ReadAll(j.file)
	if err != nil {
		return err
	}
	whole := bytes.LastIndexByte(data, '\n') + 1
	for line := range bytes.Lines(data[:whole]) {
		j.Block = nil
		if err := json.Unmarshal(line, &j.record); err != nil {
			return err
		}
		if j.Block != nil {
			j.written[*j.Block] = true
		}
	}
	if _, err := j.file.Seek(int64(whole), io.SeekStart); err != nil { // drops a line that a kill cut off
		return err
	}
	if err := j.file.Truncate(int64(whole)); err != nil {
		return err
	}
	if j.Run == "" {
		return j.restart()
	}
	return nil
}

// restart removes all changes and begins a new run.
func (j *journal) restart() error {
	var id [16]byte
	rand.Read(id[:])
	j.record, j.written = record{}, map[int32]bool{}
	if err := j.file.Truncate(0); err != nil {
		return err
	}
	if _, err := j.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return j.note(record{Run: hex.EncodeToString(id[:])})
}

// note writes a change to the file and applies it.
func (j *journal) note(change record) error {
	line, err := json.Marshal(change)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := j.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	if change.Block != nil {
		j.written[*change.Block] = true
		return nil
	}
	return json.Unmarshal(line, &j.record)
}

// isWritten reports whether EBS has acknowledged a block.
func (j *journal) isWritten(block int32) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.written[block]
}

// close releases the journal. If remove is set, it removes the file too,
// because no other run needs it.
func (j *journal) close(remove bool) error {
	var err error
	if remove {
		err = os.Remove(j.lock.Path())
	}
	return errors.Join(err, j.file.Close(), j.lock.Close())
}
