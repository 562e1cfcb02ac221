package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipway-build/slipway/cmd/internal/cli"
	"github.com/slipway-build/slipway/internal/run"
	"github.com/slipway-build/slipway/internal/vm"
)

// errChanged is the cause of the end of a machine whose files have changed.
var errChanged = errors.New("the files of the machine have changed")

// A watcher runs a machine, and builds and boots it again whenever one of its
// files changes. If a build fails, the earlier machine continues to run.
type watcher struct {
	cmd      *cobra.Command
	flags    *runFlags
	args     []string
	store    run.Store
	hardware vm.Config
	terminal *run.Terminal
	machine  *run.Session // nil if none runs
}

// watch runs until the machine ends or the context is done.
func (w *watcher) watch() error {
	if !run.IsYAML(w.args[0]) || w.args[0] == "-" || w.flags.detach || w.flags.ssh != "" {
		return cli.Usagef("--watch requires a machine YAML, and excludes --detach and --ssh")
	}
	for saved := (time.Time{}); ; {
		w.flags.complete(w.args)
		inputs := w.flags.Inputs()
		before := run.TakeSnapshot(inputs)
		err := w.boot(saved)
		if err != nil && (saved.IsZero() || w.cmd.Context().Err() != nil) {
			return errors.Join(err, w.end())
		}
		if err != nil {
			fmt.Fprintf(w.cmd.ErrOrStderr(), "slipway: %v\n", err)
		}
		saved, err = w.attend(before, inputs)
		if !errors.Is(err, errChanged) {
			status := 0
			if w.machine != nil {
				status = w.machine.ExitStatus()
			}
			if err := errors.Join(err, w.end()); err != nil {
				return err
			}
			return exitStatus(status)
		}
	}
}

// boot builds the machine, and boots it in the place of the one that runs.
func (w *watcher) boot(saved time.Time) error {
	source, err := w.flags.open(w.cmd, w.args)
	if err != nil {
		return err
	}
	if err := w.end(); err != nil {
		return err
	}
	entry, err := w.flags.create(w.cmd, w.args[0], w.store, w.hardware, source)
	if err != nil {
		return err
	}
	entry.Config.Console = w.terminal
	if w.machine, err = run.Start(w.cmd.Context(), entry); err != nil {
		return errors.Join(err, entry.Remove())
	}
	if !saved.IsZero() {
		go w.report(w.machine, saved)
	}
	return nil
}

// report prints how long it took from saving a file to ssh.
func (w *watcher) report(machine *run.Session, saved time.Time) {
	if _, err := machine.WaitSSH(w.cmd.Context(), machine.Entry.Key); err == nil {
		w.terminal.Say("ssh %.1f s after the file was saved", time.Since(saved).Seconds())
	}
}

// end ends the machine that runs. A machine whose disks are kept powers off.
func (w *watcher) end() error {
	if w.machine == nil {
		return nil
	}
	if w.flags.state != "" {
		w.machine.PowerOff(w.cmd.Context()) // or else is killed
	}
	err := w.machine.Close(nil, false)
	w.machine = nil
	return err
}

// attend shows the console until a file changes or the machine ends. It returns
// when the file was saved.
func (w *watcher) attend(before run.Snapshot, inputs []string) (saved time.Time, err error) {
	ctx, cancel := context.WithCancelCause(w.cmd.Context())
	defer cancel(nil)
	times := make(chan time.Time, 1)
	go func() {
		path, at, err := before.AwaitChange(ctx, inputs)
		if err != nil {
			return
		}
		w.terminal.Say("%s has changed", path)
		times <- at
		cancel(errChanged)
	}()
	if w.machine == nil {
		<-ctx.Done()
		err = context.Cause(ctx)
	} else {
		err = w.terminal.Console(ctx, w.machine)
	}
	if errors.Is(err, errChanged) {
		saved = <-times
	}
	return saved, err
}
