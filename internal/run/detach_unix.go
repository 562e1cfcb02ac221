//go:build unix

package run

import "syscall"

// newSession separates a process from the terminal, whose signals then do not
// reach it.
func newSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
