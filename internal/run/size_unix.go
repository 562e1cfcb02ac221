//go:build unix

package run

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/containerd/console"
	"golang.org/x/crypto/ssh"
)

// followSize tells a session when the size of the terminal changes, until the
// returned function is called.
func followSize(terminal console.Console, session *ssh.Session) (stop func()) {
	changes := make(chan os.Signal, 1)
	signal.Notify(changes, syscall.SIGWINCH)
	go func() {
		for range changes {
			if size, err := terminal.Size(); err == nil {
				session.WindowChange(int(size.Height), int(size.Width))
			}
		}
	}()
	return func() {
		signal.Stop(changes)
		close(changes)
	}
}
