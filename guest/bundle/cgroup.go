package bundle

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// CgroupRoot is the mount point of the cgroup hierarchy (version 2), or a
// directory with a hierarchy per controller (version 1).
const CgroupRoot = "/sys/fs/cgroup"

// Unified reports whether the machine uses cgroups of version 2.
func Unified() bool {
	_, err := os.Stat(filepath.Join(CgroupRoot, "cgroup.controllers"))
	return err == nil
}

// MakeCgroup makes a cgroup and its parents, each with all controllers enabled
// for its children. In version 1 it makes them under every controller.
func MakeCgroup(name string) error {
	if !Unified() {
		controllers, err := os.ReadDir(CgroupRoot)
		errs := []error{err}
		for _, controller := range controllers {
			errs = append(errs, os.MkdirAll(filepath.Join(CgroupRoot, controller.Name(), filepath.Clean("/"+name)), 0o755))
		}
		return errors.Join(errs...)
	}
	dir := CgroupRoot
	for part := range strings.SplitSeq(strings.Trim(filepath.Clean("/"+name), "/"), "/") {
		if err := EnableControllers(dir); err != nil {
			return err
		}
		dir = filepath.Join(dir, part)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("cgroup %s: %w", name, err)
		}
	}
	return nil
}

// LeaveRoot moves all processes of the root of the hierarchy to the cgroup
// "init". In a container that root is an ordinary cgroup, whose controllers can
// be enabled for its children only while it has no processes (Linux,
// Documentation/admin-guide/cgroup-v2.rst, "No Internal Process Constraint").
func LeaveRoot() error { return moveProcesses(CgroupRoot, filepath.Join(CgroupRoot, "init")) }

func moveProcesses(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	for range 10 { // processes may start others meanwhile
		pids, err := os.ReadFile(filepath.Join(from, "cgroup.procs"))
		if err != nil || len(pids) == 0 {
			return err
		}
		for pid := range strings.FieldsSeq(string(pids)) {
			err := os.WriteFile(filepath.Join(to, "cgroup.procs"), []byte(pid), 0)
			if err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("move process %s: %w", pid, err)
			}
		}
	}
	return nil
}

// EnableControllers enables all controllers of a cgroup for its children.
func EnableControllers(dir string) error {
	list, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	var errs []error
	for controller := range strings.FieldsSeq(string(list)) { // one at a time, so that the others are enabled if one fails
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
