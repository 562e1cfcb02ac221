//go:build !linux

package vm

import "syscall"

// dieWithParent does nothing, because only Linux can kill a process when the
// one that started it exits.
func dieWithParent() *syscall.SysProcAttr { return nil }
