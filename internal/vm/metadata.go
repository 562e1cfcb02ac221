package vm

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/slipway-build/slipway/internal/testutil/stack"
)

// Metadata is what EC2's metadata service tells the machine. The service is
// IMDSv2 only: each read requires a session token.
type Metadata struct {
	InstanceID string
	Hostname   string
	PublicKey  string // public-keys/0/openssh-key, a line
	UserData   string
}

// A service is a running mock of the metadata service. The zero value stands
// for none.
type service struct {
	port  int
	ended <-chan error
}

func (s *service) address() string { return "127.0.0.1:" + strconv.Itoa(s.port) }

func (s *service) wait() {
	if s.ended != nil {
		<-s.ended
	}
}

// serve runs aws/amazon-ec2-metadata-mock on a free port of 127.0.0.1 until ctx
// is done.
func (d *Metadata) serve(ctx context.Context, logDir string) (*service, error) {
	root, err := stack.Root()
	if err != nil {
		return nil, err
	}
	mock := filepath.Join(root, ".stack", "bin", "ec2-metadata-mock")
	if _, err := os.Stat(mock); err != nil {
		return nil, fmt.Errorf("metadata service: %w: run hack/stack up", err)
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	file, err := d.configure(port)
	if err != nil {
		return nil, fmt.Errorf("configure the metadata service: %w", err)
	}
	defer os.Remove(file) // the mock reads it before it listens
	log, err := os.Create(filepath.Join(logDir, "metadata.log"))
	if err != nil {
		return nil, fmt.Errorf("create the metadata service's log: %w", err)
	}
	defer log.Close()

	cmd := exec.CommandContext(ctx, mock, "--config-file", file)
	cmd.Env = []string{"HOME=" + logDir} // without the user's configuration and AEMM_ variables
	cmd.Stdout, cmd.Stderr = log, log
	ended, err := spawn(cmd)
	if err != nil {
		return nil, fmt.Errorf("start the metadata service: %w", err)
	}
	s := &service{port, ended}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if conn, err := net.Dial("tcp", s.address()); err == nil {
			conn.Close()
			return s, nil
		}
		select {
		case err := <-ended:
			return nil, fmt.Errorf("the metadata service exited: %v: %s", err, tailOf(log.Name(), 5))
		default:
		}
		if time.Now().After(deadline) {
			cmd.Process.Kill()
			s.wait()
			return nil, fmt.Errorf("the metadata service does not listen at %s: %s", s.address(), tailOf(log.Name(), 5))
		}
	}
}

// configure writes the mock's configuration to a temporary file. The mock's
// docs/configuration.md describes the keys and their defaults.
func (d *Metadata) configure(port int) (string, error) {
	config, err := json.Marshal(map[string]any{
		"imdsv2": true,
		"server": map[string]string{"hostname": "127.0.0.1", "port": strconv.Itoa(port)},
		"metadata": map[string]any{"values": map[string]string{
			"instance-id": d.InstanceID, "hostname": d.Hostname, "local-hostname": d.Hostname, "public-key": d.PublicKey,
		}},
		"userdata": map[string]any{"values": map[string]string{
			"userdata": base64.StdEncoding.EncodeToString([]byte(d.UserData)),
		}},
	})
	if err != nil {
		return "", err
	}
	file, err := os.CreateTemp("", "metadata-*.json")
	if err != nil {
		return "", err
	}
	_, err = file.Write(config)
	return file.Name(), errors.Join(err, file.Close())
}
