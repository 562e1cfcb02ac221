// Package tpmtest runs swtpm, an emulator of TPMs, for tests.
package tpmtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/slipway-build/slipway/internal/testutil/need"
)

// An Emulator is swtpm with its state in a directory.
type Emulator struct {
	t      *testing.T
	dir    string
	cancel context.CancelFunc
	done   chan error
}

// New returns a TPM that has never been used.
func New(t *testing.T) *Emulator {
	t.Helper()
	need.Program(t, "swtpm", "swtpm")
	dir, err := os.MkdirTemp("", "tpm") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	e := &Emulator{t: t, dir: dir}
	t.Cleanup(func() { e.stop() })
	return e
}

func (e *Emulator) stop() {
	if e.cancel != nil {
		e.cancel()
		<-e.done
		e.cancel = nil
	}
}

// Boot restarts the TPM, and measures what a machine has booted into PCRs 4, 7 and 11,
// unless it is "".
func (e *Emulator) Boot(machine string) transport.TPMCloser {
	e.t.Helper()
	e.stop()
	socket := filepath.Join(e.dir, "socket")
	os.Remove(socket)
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "swtpm", "socket", "--tpm2", "--tpmstate", "dir="+e.dir, "--server", "type=unixio,path="+socket, "--flags", "not-need-init,startup-clear")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if err := cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	e.cancel, e.done = cancel, make(chan error, 1)
	go func() { e.done <- cmd.Wait() }()
	var conn net.Conn
	var err error
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if conn, err = net.Dial("unix", socket); err == nil {
			break
		}
		if time.Now().After(deadline) {
			e.t.Fatalf("swtpm does not listen: %v\n%s", err, &out)
		}
	}
	t := connection{conn}
	e.t.Cleanup(func() { t.Close() })
	if machine == "" {
		return t
	}
	for _, pcr := range []tpm2.TPMHandle{4, 7, 11} {
		sum := sha256.Sum256([]byte(machine))
		if _, err := (tpm2.PCRExtend{
			PCRHandle: tpm2.AuthHandle{Handle: pcr, Auth: tpm2.PasswordAuth(nil)},
			Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: sum[:]}}},
		}).Execute(t); err != nil {
			e.t.Fatal(err)
		}
	}
	return t
}

// A connection sends commands to an emulator.
type connection struct{ net.Conn }

// Send implements transport.TPM. It repeats commands as Linux's driver does
// (tpm_transmit).
func (c connection) Send(command []byte) ([]byte, error) {
	const again = 0x922 // TPM_RC_RETRY
	for {
		if _, err := c.Write(command); err != nil {
			return nil, err
		}
		response := make([]byte, 4096)
		n, err := c.Read(response)
		if err != nil || n < 10 || binary.BigEndian.Uint32(response[6:]) != again {
			return response[:n], err
		}
		time.Sleep(time.Millisecond)
	}
}

// Shared returns a transport that does not close another one.
func Shared(t transport.TPM) transport.TPMCloser { return shared{t} }

type shared struct{ transport.TPM }

// Close implements io.Closer.
func (shared) Close() error { return nil }
