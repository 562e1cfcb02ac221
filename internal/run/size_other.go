//go:build !unix

package run

import (
	"github.com/containerd/console"
	"golang.org/x/crypto/ssh"
)

// followSize does nothing: this system has no signal for a new size.
func followSize(console.Console, *ssh.Session) (stop func()) { return func() {} }
