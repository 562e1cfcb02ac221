package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const serviceUsage = `usage: service list
       service status|start|stop|restart NAME…
       service wait-healthy [--timeout DURATION] [NAME…]
       service logs [-f] [-n LINES] NAME     a service, containerd or init
       service timeline [--svg]`

// serviceCommand is the program service. It asks process 1, but reads logs
// itself.
func serviceCommand(args []string, out io.Writer) error {
	if len(args) == 0 {
		return errors.New(serviceUsage)
	}
	switch rest := args[1:]; args[0] {
	case "logs":
		return showLogs(rest, out)
	case "list":
		if len(rest) > 0 {
			return errors.New(serviceUsage)
		}
	case "wait-healthy":
	case "timeline":
		if len(rest) > 1 || len(rest) == 1 && rest[0] != "--svg" {
			return errors.New(serviceUsage)
		}
	case "status", "start", "stop", "restart":
		if len(rest) == 0 {
			return errors.New(serviceUsage)
		}
	default:
		return errors.New(serviceUsage)
	}
	conn, err := net.Dial("unix", controlSocket)
	if err != nil {
		return fmt.Errorf("%w (service must run in the mount namespace of process 1)", err)
	}
	defer conn.Close()
	if err := json.NewEncoder(conn).Encode(request{args}); err != nil {
		return err
	}
	var a answer
	if err := json.NewDecoder(conn).Decode(&a); err != nil {
		return fmt.Errorf("read the answer of process 1: %w", err)
	}
	fmt.Fprint(out, a.Text)
	if a.Error != "" {
		return errors.New(a.Error)
	}
	return nil
}

// logRequest is what "service logs" should print.
type logRequest struct {
	name   string
	lines  int  // only the last ones; -1: all
	follow bool // continue with what is added
}

func parseLogRequest(args []string) (logRequest, error) {
	r := logRequest{lines: -1}
	for i := 0; i < len(args); i++ {
		switch {
		case args[i] == "-f":
			r.follow = true
		case args[i] == "-n" && i+1 < len(args):
			n, err := strconv.Atoi(args[i+1])
			if err != nil || n < 0 {
				return r, errors.New(serviceUsage)
			}
			r.lines = n
			i++
		case r.name == "" && !strings.HasPrefix(args[i], "-"):
			r.name = args[i]
		default:
			return r, errors.New(serviceUsage)
		}
	}
	if r.name == "" || strings.Contains(r.name, "/") {
		return r, errors.New(serviceUsage)
	}
	return r, nil
}

// showLogs prints a log with its older files.
func showLogs(args []string, out io.Writer) error {
	r, err := parseLogRequest(args)
	if err != nil {
		return err
	}
	path := filepath.Join(logDir, r.name+".log")
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	var text []byte
	for i := logKeep; i > 0; i-- {
		older, err := os.ReadFile(path + "." + strconv.Itoa(i))
		if err != nil && !os.IsNotExist(err) {
			return err
		}
		text = append(text, older...)
	}
	newest, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	text = append(text, newest...)
	if r.lines >= 0 {
		text = lastLines(text, r.lines)
	}
	if _, err := out.Write(text); err != nil {
		return err
	}
	if r.follow {
		return followLog(path, f, out)
	}
	return f.Close()
}

// followLog prints what is added to an open log, across its rotation.
func followLog(path string, f *os.File, out io.Writer) error {
	for ; ; time.Sleep(200 * time.Millisecond) {
		if _, err := io.Copy(out, f); err != nil {
			return err
		}
		next, err := os.Open(path)
		if err != nil {
			continue // between two files
		}
		if sameFile(f, next) {
			next.Close()
			continue
		}
		if _, err := io.Copy(out, f); err != nil { // what was added before the rotation
			return err
		}
		f.Close()
		f = next
	}
}

func sameFile(a, b *os.File) bool {
	one, err1 := a.Stat()
	other, err2 := b.Stat()
	return err1 == nil && err2 == nil && os.SameFile(one, other)
}

// lastLines returns the last lines of a text.
func lastLines(text []byte, lines int) []byte {
	text = bytes.TrimRight(text, "\n")
	if lines == 0 || len(text) == 0 {
		return nil
	}
	start := len(text)
	for ; lines > 0 && start >= 0; lines-- {
		start = bytes.LastIndexByte(text[:start], '\n')
	}
	return append(text[start+1:], '\n')
}
