package run

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/containerd/continuity"
	"github.com/gofrs/flock"

	"github.com/slipway-build/slipway/internal/suggest"
	"github.com/slipway-build/slipway/internal/vm"
)

// A Store holds a folder for each machine that runs, or that ran in the
// background. Whoever runs a machine keeps the lock in its folder. The kernel
// releases the lock when that process ends for any reason, so a process ID that
// another process has meanwhile does no harm.
type Store struct{ dir string }

// OpenStore returns the user's store: slipway/machines in XDG_STATE_HOME, or in
// ~/.local/state.
func OpenStore() (Store, error) {
	dir := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(dir) { // as the XDG Base Directory Specification demands
		home, err := os.UserHomeDir()
		if err != nil {
			return Store{}, fmt.Errorf("state of machines: %w", err)
		}
		dir = filepath.Join(home, ".local", "state")
	}
	s := Store{filepath.Join(dir, "slipway", "machines")}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return Store{}, fmt.Errorf("state of machines: %w", err)
	}
	return s, nil
}

// The states of a machine.
const (
	Starting = "starting"
	Running  = "running"
	Ended    = "ended"
)

// A Record describes a machine to other processes.
type Record struct {
	Name    string
	Source  string // as the user wrote it
	State   string
	PID     int // of the process that runs it, for people
	Started time.Time
	Ended   time.Time `json:",omitzero"`

	Config     vm.Config
	SSHAddress string
	Key        vm.Key
	Control    string // socket
	StateDir   string `json:",omitempty"` // keeps disks and keys between runs; "": none does

	Status int    // exit status, valid when the machine has ended
	Error  string `json:",omitempty"` // why it ended, if it did not power off
}

// An Entry is the folder of a machine that this process runs.
type Entry struct {
	Record
	Dir   string
	lock  *flock.Flock
	state *flock.Flock // of StateDir; nil for none
}

// Keep returns the directory for what outlives a run, if the user has chosen
// one.
func (e *Entry) Keep() string { return cmp.Or(e.StateDir, e.Dir) }

// UseState makes a directory keep the state of the machine. It fails if another
// machine uses it.
func (e *Entry) UseState(dir string) error {
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return fmt.Errorf("--state: %w", err)
	}
	e.StateDir = dir
	return e.lockState()
}

func (e *Entry) lockState() error {
	if e.StateDir == "" {
		return nil
	}
	e.state = flock.New(filepath.Join(e.StateDir, lockFile), flock.SetPermissions(0o600))
	locked, err := e.state.TryLock()
	if err == nil && !locked {
		err = errors.New("a running machine uses this state: \"slipway ps\" lists the machines")
	}
	if err != nil {
		return fmt.Errorf("--state %s: %w", e.StateDir, err)
	}
	return nil
}

// release releases the locks.
func (e *Entry) release() error {
	err := e.lock.Close()
	if e.state != nil {
		err = errors.Join(err, e.state.Close())
	}
	return err
}

const (
	recordFile = "machine.json"
	lockFile   = "lock"
)

// ErrRunning is the error for a name that a running machine has.
var ErrRunning = errors.New("runs already")

var invalid = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// checkName reports what is wrong with a name.
func checkName(name string) error {
	if name == "" || invalid.MatchString(name) || strings.HasPrefix(name, ".") || len(name) > 64 {
		return fmt.Errorf("%q is not a name for a machine: use letters, digits, '.', '-' and '_'", name)
	}
	return nil
}

// Create creates the folder of a machine that is about to run. If the name is
// not fixed, it gets a number when a running machine has it.
func (s Store) Create(name string, fixed bool) (*Entry, error) {
	if !fixed {
		name = strings.Trim(invalid.ReplaceAllString(name, "-"), "-.")
		name = name[:min(len(name), 50)]
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	for n := 1; ; n++ {
		numbered := name
		if n > 1 {
			numbered = fmt.Sprintf("%s-%d", name, n)
		}
		e, err := s.create(numbered)
		if err == nil || fixed || !errors.Is(err, ErrRunning) {
			return e, err
		}
	}
}

func (s Store) create(name string) (*Entry, error) {
	e := s.entry(name)
	e.Record = Record{Name: name, State: Starting, Started: time.Now().Round(0)}
	if err := os.MkdirAll(e.Dir, 0o700); err != nil {
		return nil, err
	}
	if err := e.acquire(); err != nil {
		return nil, err
	}
	if err := e.clear(); err != nil {
		e.lock.Close()
		return nil, err
	}
	return e, nil
}

func (s Store) entry(name string) *Entry {
	dir := filepath.Join(s.dir, name)
	return &Entry{Record: Record{Name: name}, Dir: dir, lock: flock.New(filepath.Join(dir, lockFile), flock.SetPermissions(0o600))}
}

// acquire takes the lock.
func (e *Entry) acquire() error {
	for deadline := time.Now().Add(time.Second); ; time.Sleep(50 * time.Millisecond) { // others look at the lock for a moment
		locked, err := e.lock.TryLock()
		if err != nil {
			return fmt.Errorf("machine %s: %w", e.Name, err)
		}
		if locked {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("machine %s %w: stop it with \"slipway stop %s\", or choose another --name", e.Name, ErrRunning, e.Name)
		}
	}
}

// clear removes what an earlier machine of the name has left.
func (e *Entry) clear() error {
	files, err := os.ReadDir(e.Dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		if f.Name() != lockFile {
			if err := os.RemoveAll(filepath.Join(e.Dir, f.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// end records how a machine ended.
func (e *Entry) end(status int, err error) {
	e.State, e.Ended, e.Status = Ended, time.Now().Round(0), status
	if err != nil {
		e.Status, e.Error = 1, err.Error()
	}
}

// save writes the record.
func (e *Entry) save() error {
	data, err := json.MarshalIndent(e.Record, "", "  ")
	if err != nil {
		return err
	}
	return continuity.AtomicWriteFile(filepath.Join(e.Dir, recordFile), append(data, '\n'), 0o600)
}

// Remove removes the folder and releases the lock.
func (e *Entry) Remove() error { return errors.Join(os.RemoveAll(e.Dir), e.release()) }

// Find returns the record of a machine.
func (s Store) Find(name string) (Record, error) {
	all, err := s.List()
	if err != nil {
		return Record{}, err
	}
	var names []string
	for _, r := range all {
		if r.Name == name {
			return r, nil
		}
		names = append(names, r.Name)
	}
	return Record{}, fmt.Errorf("there is no machine %q%s: \"slipway ps --all\" lists them", name, suggest.Among(name, names))
}

// List returns the records of all machines by name. It removes the folders of
// those whose process ended before it could describe them.
func (s Store) List() ([]Record, error) {
	dirs, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("state of machines: %w", err)
	}
	var all []Record
	for _, d := range dirs {
		r, err := s.read(d.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("machine %s: %w", d.Name(), err)
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b Record) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// read reads a record. If the process that ran the machine is gone, the machine
// has ended, whatever the record says.
func (s Store) read(name string) (Record, error) {
	r, err := s.load(name)
	if err != nil {
		return r, err
	}
	if r.State == Ended {
		return r, nil
	}
	lock := flock.New(filepath.Join(s.dir, name, lockFile))
	defer lock.Close()
	free, err := lock.TryRLock()
	if err != nil {
		return Record{}, err
	}
	if free {
		r.State, r.Status, r.Error = Ended, 1, "the process that ran it was killed"
	}
	return r, nil
}

// Log returns the path of the console's log.
func (s Store) Log(r Record) string { return filepath.Join(s.dir, r.Name, "console.log") }

// console returns the output of the machine's console so far.
func (s Store) console(r Record) ([]byte, error) {
	text, err := os.ReadFile(s.Log(r))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return text, err
}
