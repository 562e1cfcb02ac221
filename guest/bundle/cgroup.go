package bundle

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// CgroupRoot is where the unified hierarchy of cgroups (version 2) is mounted, or a directory with a hierarchy for each controller (version 1).
const CgroupRoot = "/sys/fs/cgroup"

// Unified tells whether the cgroups of the machine are those of version 2.
func Unified() bool {
	_, err := os.Stat(filepath.Join(CgroupRoot, "cgroup.controllers"))
	return err == nil
}

// MakeCgroup makes a cgroup and those above it, each with all controllers enabled for its children. In version 1 it is made under every controller.
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

// EnableControllers lets the children of a cgroup use every controller that it has itself.
func EnableControllers(dir string) error {
	list, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	var errs []error
	for controller := range strings.FieldsSeq(string(list)) { // one at a time: a refused one does not stop the others
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
