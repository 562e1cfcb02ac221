package bundle

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// CgroupRoot is where the unified hierarchy of cgroups (version 2) is mounted.
const CgroupRoot = "/sys/fs/cgroup"

// MakeCgroup makes a cgroup and those above it, each with all controllers enabled for its children.
func MakeCgroup(name string) error {
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
