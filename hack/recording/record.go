package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/console"
)

const (
	prompt  = "\x1b[1;32m$\x1b[0m "
	keys    = 0.03 // seconds between typed characters
	reading = 2.0  // seconds after a command
	pause   = 1.5  // longest pause in the output of a command, in seconds
)

// record runs the commands of a script one after another. A command that fails
// ends the recording with an error.
func record(script []byte) (*cast, error) {
	c := &cast{Version: 2, Width: columns, Height: rows}
	now := 0.0
	add := func(after float64, text string) {
		now += after
		c.events = append(c.events, event{now, text})
	}
	for line := range strings.Lines(string(script)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		add(0, prompt)
		for _, r := range line {
			add(keys, string(r))
		}
		add(0.3, "\r\n")
		output, err := runInTerminal(line)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", line, err)
		}
		output.quicken(pause)
		start := now
		for _, e := range output.events {
			add(start+e.at-now, e.text)
		}
		now += reading
	}
	add(0, prompt)
	return c, nil
}

// runInTerminal runs a shell command in a new terminal.
func runInTerminal(command string) (*cast, error) {
	terminal, name, err := console.NewPty()
	if err != nil {
		return nil, err
	}
	defer terminal.Close()
	if err := terminal.Resize(console.WinSize{Height: rows, Width: columns}); err != nil {
		return nil, err
	}
	tty, err := os.OpenFile(name, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer tty.Close()
	cmd := exec.Command("bash", "-c", command)
	cmd.Env = append(os.Environ(), "TERM=xterm-256color", "LC_ALL=C.UTF-8")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	tty.Close() // so that the output ends with the command
	c := &cast{}
	var partial []byte // of a character
	buffer := make([]byte, 32<<10)
	for {
		n, err := terminal.Read(buffer)
		text := append(partial, buffer[:n]...)
		end := wholeRunes(text)
		if end > 0 {
			c.events = append(c.events, event{time.Since(start).Seconds(), string(text[:end])})
		}
		partial = append([]byte(nil), text[end:]...)
		if errors.Is(err, syscall.EIO) || errors.Is(err, io.EOF) { // the command has closed the terminal
			break
		}
		if err != nil {
			return nil, err
		}
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, c.tail())
	}
	return c, nil
}

// tail returns the last output, for errors.
func (c *cast) tail() string {
	var all strings.Builder
	for _, e := range c.events {
		all.WriteString(e.text)
	}
	text := all.String()
	return text[max(0, len(text)-500):]
}
