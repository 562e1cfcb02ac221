package vm

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// A Key is an SSH key pair.
type Key struct {
	Path   string // path of the private key
	Public string // line of an authorized_keys file
	User   string // to log in as; default: root
}

// NewKey creates an Ed25519 key pair named id_ed25519 in a directory, or reads
// the existing one.
func NewKey(dir string) (Key, error) {
	path := filepath.Join(dir, "id_ed25519")
	if !exists(path) {
		if err := createKey(path); err != nil {
			return Key{}, fmt.Errorf("create an ssh key: %w", err)
		}
	}
	public, err := os.ReadFile(path + ".pub")
	if err != nil {
		return Key{}, fmt.Errorf("read the public key: %w", err)
	}
	return Key{Path: path, Public: strings.TrimSpace(string(public))}, nil
}

func createKey(path string) error {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, "slipway")
	if err != nil {
		return err
	}
	authorized, err := ssh.NewPublicKey(public)
	if err != nil {
		return err
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(authorized))) + " slipway\n"
	if err := os.WriteFile(path+".pub", []byte(line), 0o644); err != nil {
		return err
	}
	return os.WriteFile(path, pem.EncodeToMemory(block), 0o600)
}

// ErrRejected is the error of a login whose key the machine does not accept.
var ErrRejected = errors.New("the machine rejects the ssh key")

// Login connects to an SSH server as the user of the key. The machine's host key is new at
// each boot, so Login does not check it. The error is ErrRejected if the server
// does not accept the key.
func Login(ctx context.Context, address string, key Key) (*ssh.Client, error) {
	private, err := os.ReadFile(key.Path)
	if err != nil {
		return nil, fmt.Errorf("ssh key: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("ssh key %s: %w", key.Path, err)
	}
	conn, err := (&net.Dialer{Timeout: 30 * time.Second}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("ssh: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	c, channels, requests, err := ssh.NewClientConn(conn, address, &ssh.ClientConfig{
		User:            cmp.Or(key.User, "root"),
		Auth:            []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		conn.Close()
		if strings.Contains(err.Error(), "unable to authenticate") {
			return nil, fmt.Errorf("%w %s", ErrRejected, key.Path)
		}
		return nil, fmt.Errorf("ssh: %w", err)
	}
	return ssh.NewClient(c, channels, requests), nil
}

// A Result is the result of a command on the machine.
type Result struct {
	Stdout, Stderr string

	// Exit is the command's exit status, or 255 if the connection ended before
	// the command.
	Exit int
}

// ExitStatus returns the exit status of a command from the error of its
// session, as the program ssh does.
func ExitStatus(err error) int {
	var exit *ssh.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.Signal() != "":
		return 128 + signalNumbers[exit.Signal()]
	case errors.As(err, &exit):
		return exit.ExitStatus()
	}
	return 255
}

// signalNumbers has the signals of RFC 4254, section 6.10.
var signalNumbers = map[string]int{"ABRT": 6, "ALRM": 14, "FPE": 8, "HUP": 1, "ILL": 4, "INT": 2, "KILL": 9, "PIPE": 13, "QUIT": 3, "SEGV": 11, "TERM": 15, "USR1": 10, "USR2": 12}

// SSHCommand returns the command line of a login with the program ssh, with this
// key only.
func SSHCommand(address string, key Key) string {
	host, port, _ := net.SplitHostPort(address)
	return strings.Join([]string{"ssh", "-F", "none", "-i", key.Path, "-p", port, "-o", "IdentitiesOnly=yes",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "root@" + host}, " ")
}

// SSHCommand returns the command line for a login as root.
func (m *Machine) SSHCommand(key Key) string { return SSHCommand(m.SSHAddress(), key) }

// SSH runs a shell command on the machine as the user of the key. It returns an error if the
// login fails or ctx is done.
func (m *Machine) SSH(ctx context.Context, key Key, command string) (Result, error) {
	what := fmt.Sprintf("ssh %q did not finish", command)
	client, err := Login(ctx, m.SSHAddress(), key)
	if ctx.Err() != nil {
		return Result{}, m.failure(what, context.Cause(ctx))
	}
	if err != nil {
		return Result{}, err
	}
	defer client.Close()
	defer context.AfterFunc(ctx, func() { client.Close() })()
	session, err := client.NewSession()
	if err != nil {
		return Result{}, fmt.Errorf("ssh: %w", err)
	}
	var stdout, stderr bytes.Buffer
	session.Stdout, session.Stderr = &stdout, &stderr
	err = session.Run(command)
	if ctx.Err() != nil {
		return Result{}, m.failure(what, context.Cause(ctx))
	}
	return Result{stdout.String(), stderr.String(), ExitStatus(err)}, nil
}

// WaitSSH waits until a login with this key succeeds and returns the time from
// power-on to the end of that login. It returns an error if the machine powers
// off, its kernel panics, it rejects the login, or ctx is done.
func (m *Machine) WaitSSH(ctx context.Context, key Key) (time.Duration, error) {
	for {
		if over := m.over(); over != nil {
			return 0, m.failure("no ssh", over)
		}
		if Greets(ctx, m.SSHAddress()) {
			result, err := m.SSH(ctx, key, "true")
			switch {
			case errors.Is(err, ErrRejected):
				return 0, m.failure("no ssh", err)
			case err == nil && result.Exit == 0:
				return m.console.now(), nil
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

// Greets reports whether a server greets like an ssh server (RFC 4253, section
// 4.2).
func Greets(ctx context.Context, address string) bool {
	const greeting = "SSH-"
	return Answer(ctx, address, "", len(greeting)) == greeting
}

// Answer connects to a server, sends a request and returns the first n bytes of
// the answer, or fewer if there are no more within 3 s. QEMU accepts connections
// before the guest does, and retries to forward an early one at increasing
// intervals. So each attempt is short.
func Answer(ctx context.Context, address, request string, n int) string {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return ""
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := io.WriteString(conn, request); err != nil {
		return ""
	}
	answer := make([]byte, n)
	n, _ = io.ReadFull(conn, answer)
	return string(answer[:n])
}

// SSHAddress returns the address at which the host forwards to the guest's port
// 22.
func (m *Machine) SSHAddress() string { return "127.0.0.1:" + strconv.Itoa(m.SSHPort) }
