// Package modprobe loads modules into the running kernel, as modprobe(8) does.
package modprobe

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/internal/kernel/cmdline"
	"github.com/slipway-build/slipway/internal/kernel/kmod"
)

// ErrNotFound is the error for a name that is neither the name or alias of a
// module nor built into the kernel.
var ErrNotFound = errors.New("no such kernel module")

// Loader loads the modules of one index. It is safe for concurrent use.
type Loader struct {
	index     *kmod.Index
	params    map[string]string
	blacklist map[string]bool
	insert    func(path, params string) error

	mu       sync.Mutex
	attempts map[string]*attempt
}

// attempt is the only attempt to load one module.
type attempt struct {
	done chan struct{}
	err  error // valid only after done is closed
}

// NewLoader returns a loader. The command line of the kernel holds parameters of
// modules (MODULE.NAME=VALUE) and modules that devices must not load
// (modprobe.blacklist=MODULE,…), both in the form of modprobe(8).
func NewLoader(index *kmod.Index, args []cmdline.Arg) *Loader {
	l := &Loader{
		index:     index,
		params:    map[string]string{},
		blacklist: map[string]bool{},
		insert:    insert,
		attempts:  map[string]*attempt{},
	}
	for _, arg := range args {
		name, param, ok := strings.Cut(arg.Key, ".")
		if !ok {
			continue
		}
		if arg.Key == "modprobe.blacklist" {
			for name := range strings.SplitSeq(arg.Value, ",") {
				l.blacklist[kmod.Normalize(name)] = true
			}
			continue
		}
		if arg.HasValue {
			value := arg.Value
			if strings.ContainsAny(value, " \t") {
				value = `"` + value + `"`
			}
			param += "=" + value
		}
		name = kmod.Normalize(name)
		l.params[name] = strings.TrimSpace(l.params[name] + " " + param)
	}
	return l
}

// Nodes returns the device nodes whose opening makes the kernel load a module.
func (l *Loader) Nodes() []kmod.Node { return l.index.Nodes() }

// Load loads the modules of a name or an alias, with their dependencies. A module
// that is already loaded is not an error.
func (l *Loader) Load(name string) error {
	modules := l.index.Resolve(name)
	if len(modules) == 0 {
		if l.index.Builtin(name) {
			return nil
		}
		return fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	return l.load(modules)
}

// LoadFor loads the drivers for the modalias of a device. It is not an error if no
// module has the alias, or if a driver rejects the device.
func (l *Loader) LoadFor(modalias string) error {
	modules := slices.DeleteFunc(l.index.Resolve(modalias), func(name string) bool { return l.blacklist[name] })
	if err := l.load(modules); !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}

// try loads one module. If another goroutine has started to do so, it waits for
// the result.
func (l *Loader) try(name string) error {
	l.mu.Lock()
	a, ok := l.attempts[name]
	if !ok {
		a = &attempt{done: make(chan struct{})}
		l.attempts[name] = a
	}
	l.mu.Unlock()
	if ok {
		<-a.done
		return a.err
	}
	a.err = l.insert(l.index.Path(name), l.params[name])
	close(a.done)
	return a.err
}

// load returns the error of a dependency only if the module itself could not be
// loaded either.
func (l *Loader) load(modules []string) error {
	var errs []error
	for _, name := range modules {
		var failed, own error
		for _, step := range l.index.Order(name) {
			err := l.try(step)
			if step == name {
				own = err
			}
			if err != nil && (failed == nil || step == name) {
				failed = fmt.Errorf("load kernel module %s: %w", step, err)
			}
		}
		if own != nil {
			errs = append(errs, failed)
		}
	}
	return errors.Join(errs...)
}

// insert loads one module. The kernel decompresses it, if it is able to.
func insert(path, params string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	flags := 0
	if filepath.Ext(path) != ".ko" {
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	switch err := unix.FinitModule(int(f.Fd()), params, flags); {
	case errors.Is(err, unix.EEXIST):
		return nil
	default:
		return err
	}
}
