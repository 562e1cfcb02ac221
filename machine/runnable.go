package machine

import (
	"maps"
	"path"
	"slices"
	"strings"
)

// A fault is a value that makes runc reject a container.
type fault struct {
	key, entry string // of the container, and of the map there; entry may be empty
	reason     string
}

// faults returns what makes runc reject a container, so that it never starts
// (runc, libcontainer/configs/validate).
func (c *Container) faults() (found []fault) {
	if c.Cwd != "" && !path.IsAbs(c.Cwd) {
		found = append(found, fault{"cwd", "", "the cwd is not an absolute path"})
	}
	for _, name := range slices.Sorted(maps.Keys(c.Sysctl)) {
		if reason := c.sysctlFault(strings.ReplaceAll(name, "/", ".")); reason != "" {
			found = append(found, fault{"sysctl", name, name + " " + reason})
		}
	}
	mapped := len(c.UIDMappings) > 0 && len(c.GIDMappings) > 0
	switch {
	case c.Userns == "new" && !mapped:
		found = append(found, fault{"userns", "", "a new user namespace needs uidMappings and gidMappings"})
	case !c.Userns.separate() && len(c.UIDMappings)+len(c.GIDMappings) > 0:
		found = append(found, fault{"uidMappings", "", "mappings need a user namespace: add userns: new"})
	}
	return found
}

// ipcSysctls are the kernel parameters of the IPC namespace, besides those below
// fs.mqueue.
var ipcSysctls = []string{
	"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shm_rmid_forced", "kernel.shmall", "kernel.shmmax", "kernel.shmmni",
}

// sysctlFault returns why a container cannot set a kernel parameter, or "".
func (c *Container) sysctlFault(name string) string {
	switch {
	case slices.Contains(ipcSysctls, name) || strings.HasPrefix(name, "fs.mqueue."):
		if !c.Ipc.separate() {
			return "needs an IPC namespace: add ipc: new"
		}
	case strings.HasPrefix(name, "net."):
		if !c.Net.separate() {
			return "needs a network namespace: add net: new"
		}
	case name == "kernel.domainname":
		if !c.Uts.separate() {
			return "needs a UTS namespace: add uts: new"
		}
	case name == "kernel.hostname":
		return "is what the key hostname sets"
	case strings.HasPrefix(name, "user.") && c.Userns.separate():
	default:
		return "is of the whole machine: set it with the package sysctl"
	}
	return ""
}
