package kmod

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
)

// ErrNotFound is the error for a name that no module has and that is not built into the kernel.
var ErrNotFound = errors.New("no such kernel module")

// Loader loads modules of one index into the running kernel. Its methods may be called from several goroutines.
type Loader struct {
	index     *Index
	params    map[string]string
	blacklist map[string]bool
	insert    func(path, params string) error

	mu       sync.Mutex
	attempts map[string]*attempt
}

// attempt is the loading of one module, which is tried once.
type attempt struct {
	done chan struct{}
	err  error // to be read after done
}

// NewLoader makes a loader. The kernel's command line gives parameters of modules (MODULE.NAME=VALUE) and modules
// that devices must not pull in (modprobe.blacklist=MODULE,…), both as modprobe(8) reads them there.
func NewLoader(index *Index, args []cmdline.Arg) *Loader {
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
				l.blacklist[normalise(name)] = true
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
		name = normalise(name)
		l.params[name] = strings.TrimSpace(l.params[name] + " " + param)
	}
	return l
}

// Nodes are the device nodes by which programs ask for modules that are not loaded yet.
func (l *Loader) Nodes() []Node { return l.index.nodes }

// Load loads the modules of a name or an alias, with all that they depend on. Modules that are loaded already are no error.
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

// LoadFor loads the drivers for the modalias of a device. It is no error if none knows the alias, or if one does not want the device.
func (l *Loader) LoadFor(modalias string) error {
	modules := slices.DeleteFunc(l.index.Resolve(modalias), func(name string) bool { return l.blacklist[name] })
	if err := l.load(modules); !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}

// try loads one module, or waits for whoever does, or did.
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
	a.err = l.insert(filepath.Join(l.index.dir, l.index.modules[name].file), l.params[name])
	close(a.done)
	return a.err
}

// load reports what went wrong on the way to a module only if that module itself could not be loaded.
func (l *Loader) load(modules []string) error {
	var errs []error
	for _, name := range modules {
		var failed, own error
		for _, step := range l.index.order(name) {
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

// order gives a module and all that it needs, in the order of loading.
func (x *Index) order(name string) []string {
	var steps []string
	seen := map[string]bool{}
	var visit func(name string)
	soft := func(names []string) {
		for _, alias := range names {
			for _, name := range x.Resolve(alias) {
				visit(name)
			}
		}
	}
	visit = func(name string) {
		m, ok := x.modules[name]
		if !ok || seen[name] {
			return
		}
		seen[name] = true
		soft(x.softdeps[name].pre)
		for _, dep := range m.deps {
			visit(dep)
		}
		steps = append(steps, name)
		soft(x.softdeps[name].post)
	}
	visit(name)
	return steps
}

// insert puts one module into the kernel. The kernel unpacks a compressed one itself, if it can.
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
