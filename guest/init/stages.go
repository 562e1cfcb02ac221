package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A stage is a step of boot or shutdown: one of the init itself, or a hook,
// which is an executable file in /etc/init.d or /etc/shutdown.d.
type stage struct {
	name string
	run  func(ctx context.Context) error
}

// stages returns the hooks in dir and the given stages, sorted by name. In
// LinuxKit, links in that directory lead to a program that does what this init
// does itself, so anything but a regular file is ignored.
func (m *machine) stages(dir string, own ...stage) []stage {
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		m.out.say("hooks: %v", err)
	}
	all := own
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			continue
		}
		path := filepath.Join(dir, entry.Name())
		all = append(all, stage{entry.Name(), func(context.Context) error {
			return m.reaper.run(context.Background(), command{path: path, stdout: os.Stdout, stderr: os.Stderr})
		}})
	}
	slices.SortStableFunc(all, func(a, b stage) int { return strings.Compare(a.name, b.name) })
	return all
}

// runStages runs stages one after another. If a stage fails, it prints the
// error and continues. It stops when ctx ends.
func (m *machine) runStages(ctx context.Context, stages []stage) {
	for _, s := range stages {
		if ctx.Err() != nil {
			return
		}
		if err := s.run(ctx); err != nil {
			m.out.say("%s: %v", s.name, err)
		}
	}
}
