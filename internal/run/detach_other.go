//go:build !unix

package run

import "syscall"

// newSession does nothing on this system.
func newSession() *syscall.SysProcAttr { return nil }
