package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/slipway-build/slipway/internal/vm/cloud"
)

// helpers are the services and processes that a machine requires beside QEMU.
// They end with the context of the machine.
type helpers struct{ running sync.WaitGroup }

func (h *helpers) wait() { h.running.Wait() }

// startHelpers creates the files that QEMU opens and starts the helpers. If it
// fails, none runs.
func (m *Machine) startHelpers(ctx context.Context, config Config) (*helpers, error) {
	h := &helpers{}
	err := config.createVariables()
	if service := config.metadata(); err == nil && service != nil {
		err = h.serveMetadata(ctx, service, m.sockets().metadata, m.logDir)
	}
	if err == nil && config.TPM != "" {
		err = h.startTPM(ctx, config.TPM, m.sockets().tpm, m.logDir)
	}
	if err != nil {
		m.cancel()
		h.wait()
		return nil, err
	}
	return h, nil
}

// metadata returns the metadata service, or nil for a machine without one.
func (c *Config) metadata() http.Handler {
	if c.MetadataHandler == nil && c.Metadata != nil {
		return cloud.NewEC2(*c.Metadata)
	}
	return c.MetadataHandler
}

// serveMetadata serves the metadata service on a socket, and logs the requests.
func (h *helpers) serveMetadata(ctx context.Context, service http.Handler, socket, logDir string) error {
	file, err := os.Create(filepath.Join(logDir, "metadata.log"))
	if err != nil {
		return fmt.Errorf("create the metadata service's log: %w", err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		file.Close()
		return fmt.Errorf("metadata service: %w", err)
	}
	logger := log.New(file, "", log.LstdFlags)
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			logger.Printf("%s %q", r.Method, r.URL.Path)
			service.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          logger,
	}
	context.AfterFunc(ctx, func() { server.Close() })
	h.running.Go(func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			logger.Print(err)
		}
		file.Close()
	})
	return nil
}

// startTPM starts swtpm, which emulates a TPM, and waits until it listens. It
// exits when QEMU closes the connection.
func (h *helpers) startTPM(ctx context.Context, dir, socket, logDir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("state of the TPM: %w", err)
	}
	out, err := os.Create(filepath.Join(logDir, "tpm.log"))
	if err != nil {
		return fmt.Errorf("create the TPM's log: %w", err)
	}
	defer out.Close()
	cmd := exec.CommandContext(ctx, "swtpm", "socket", "--tpm2", "--terminate", "--tpmstate", "dir="+dir, "--ctrl", "type=unixio,path="+socket)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = grace
	ended, err := spawn(cmd)
	if err != nil {
		return fmt.Errorf("start swtpm: %w", err)
	}
	done := make(chan struct{})
	h.running.Go(func() { <-ended; close(done) })
	for deadline := time.Now().Add(10 * time.Second); !exists(socket); {
		select {
		case <-done:
			return fmt.Errorf("swtpm failed: %s", tailOf(out.Name(), 5))
		case <-time.After(20 * time.Millisecond):
			if time.Now().After(deadline) {
				return fmt.Errorf("swtpm does not listen: %s", tailOf(out.Name(), 5))
			}
		}
	}
	return nil
}

// relayArgument is the first argument of this program when QEMU starts it as a
// relay. The second one is the socket of the metadata service.
const relayArgument = "--slipway-metadata-relay"

// relayCommand returns the command that QEMU starts for each connection to the
// metadata service, as a shell would quote it. It is this program, whichever it
// is, so that no other has to be installed.
func relayCommand(socket string) string {
	program, err := os.Executable()
	if err != nil {
		program = os.Args[0]
	}
	quoted := func(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
	return quoted(program) + " " + relayArgument + " " + quoted(socket)
}

func init() {
	if len(os.Args) == 3 && os.Args[1] == relayArgument {
		if err := relay(os.Args[2], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// relay copies between a socket and a pair of files until the socket is closed.
func relay(socket string, in io.Reader, out io.Writer) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	go func() {
		io.Copy(conn, in)
		conn.(*net.UnixConn).CloseWrite()
	}()
	_, err = io.Copy(out, conn)
	return err
}
