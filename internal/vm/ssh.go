package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A Key is an SSH key pair.
type Key struct {
	Path   string // path of the private key
	Public string // line of an authorized_keys file
}

// NewKey creates an Ed25519 key pair named id_ed25519 in a directory, or reads
// the existing one.
func NewKey(dir string) (Key, error) {
	if err := installed("ssh-keygen", "openssh-client"); err != nil {
		return Key{}, err
	}
	path := filepath.Join(dir, "id_ed25519")
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "slipway", "-f", path).CombinedOutput()
		if err != nil {
			return Key{}, fmt.Errorf("ssh-keygen %s: %w: %s", path, err, out)
		}
	}
	public, err := os.ReadFile(path + ".pub")
	if err != nil {
		return Key{}, fmt.Errorf("read the public key: %w", err)
	}
	return Key{Path: path, Public: strings.TrimSpace(string(public))}, nil
}

// A Result is the result of a command on the machine.
type Result struct {
	Stdout, Stderr string

	// Exit is the command's exit status, or 255 if ssh failed. Stderr then has
	// ssh's error message.
	Exit int
}

// sshOptions returns the options of a login with this key only. The machine's
// host key is new at each boot, so ssh neither checks nor stores it.
func (m *Machine) sshOptions(key Key) []string {
	return []string{"-F", "none", "-i", key.Path, "-p", strconv.Itoa(m.SSHPort), "-o", "IdentitiesOnly=yes",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"}
}

// SSHCommand returns the command line for a login as root.
func (m *Machine) SSHCommand(key Key) string {
	return "ssh " + strings.Join(m.sshOptions(key), " ") + " root@127.0.0.1"
}

// SSH runs a shell command on the machine as root. If the login is rejected,
// the Result has Exit 255. SSH returns an error if ssh cannot run or ctx is
// done.
func (m *Machine) SSH(ctx context.Context, key Key, command string) (Result, error) {
	if err := installed("ssh", "openssh-client"); err != nil {
		return Result{}, err
	}
	args := append(m.sshOptions(key), "-o", "BatchMode=yes", "-o", "ConnectTimeout=30",
		"-o", "ServerAliveInterval=10", // a killed machine does not close the connection
		"root@127.0.0.1", command)
	cmd := exec.CommandContext(ctx, "ssh", args...)
	cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK=") // no keys of an agent
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		return Result{}, m.failure(fmt.Sprintf("ssh %q did not finish", command), context.Cause(ctx))
	}
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return Result{}, fmt.Errorf("run ssh: %w", err)
	}
	return Result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}, nil
}

// WaitSSH waits until a login with this key succeeds and returns the time from
// power-on to the end of that login. It returns an error if the machine powers
// off, its kernel panics, it rejects the login, or ctx is done.
func (m *Machine) WaitSSH(ctx context.Context, key Key) (time.Duration, error) {
	for {
		if over := m.over(); over != nil {
			return 0, m.failure("no ssh", over)
		}
		if m.greeted(ctx) {
			result, err := m.SSH(ctx, key, "true")
			switch {
			case err != nil:
				return 0, err
			case result.Exit == 0:
				return m.console.now(), nil
			case strings.Contains(result.Stderr, "Permission denied"):
				return 0, m.failure("ssh with "+key.Path, errors.New(strings.TrimSpace(result.Stderr)))
			}
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-m.done:
		case <-ctx.Done():
			return 0, m.failure("no ssh", context.Cause(ctx))
		}
	}
}

// greeted reports whether an SSH server answers (RFC 4253, section 4.2). QEMU
// accepts connections before the guest does, and retries to forward an early
// one at increasing intervals. So each attempt is short.
func (m *Machine) greeted(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", m.sshAddress())
	if err != nil {
		return false
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	greeting := make([]byte, len("SSH-"))
	_, err = io.ReadFull(conn, greeting)
	return err == nil && string(greeting) == "SSH-"
}

func (m *Machine) sshAddress() string { return "127.0.0.1:" + strconv.Itoa(m.SSHPort) }
