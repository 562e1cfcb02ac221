package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// stage is a step of start or stop: one of init's own, or a hook, an executable file in /etc/init.d or /etc/shutdown.d.
type stage struct {
	name string
	run  func(ctx context.Context) error
}

// stages puts the hooks in dir among init's own steps, by name. In LinuxKit init's steps are links in that directory to a program of its own:
// a hook that is not a regular file is therefore left out.
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
			return m.family.run(command{path: path, stdout: os.Stdout, stderr: os.Stderr})
		}})
	}
	slices.SortStableFunc(all, func(a, b stage) int { return strings.Compare(a.name, b.name) })
	return all
}

// runStages runs them one after the other. A failure is told and does not stop the rest, but the end of ctx does.
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
