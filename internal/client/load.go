package client

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
)

// loader is a "docker load" that reads an image from a pipe.
type loader struct {
	io.WriteCloser
	cmd    *exec.Cmd
	stderr bytes.Buffer
}

// loadImage returns a writer that loads an image archive into the Docker Engine
// of a docker context, or of the current one if the name is empty.
func loadImage(ctx context.Context, engine string) (io.WriteCloser, error) {
	args := []string{"load", "--quiet"}
	if engine != "" {
		args = append([]string{"--context", engine}, args...)
	}
	l := &loader{cmd: exec.CommandContext(ctx, "docker", args...)}
	l.cmd.Stderr = &l.stderr
	var err error
	if l.WriteCloser, err = l.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := l.cmd.Start(); err != nil {
		return nil, fmt.Errorf("load the image: %w", err)
	}
	return l, nil
}

// Close waits until the Docker Engine has the image.
func (l *loader) Close() error {
	closed := l.WriteCloser.Close()
	if err := l.cmd.Wait(); err != nil {
		return fmt.Errorf("docker load: %w: %s", err, strings.TrimSpace(l.stderr.String()))
	}
	return closed
}
