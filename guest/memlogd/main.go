// Memlogd keeps the last lines of all logs of a machine in memory, and gives them to those who ask, as LinuxKit's program of that name does.
// https://github.com/linuxkit/linuxkit/blob/master/docs/logging.md
//
// Logs come to the datagram socket /run/linuxkit-external-logging.sock: a datagram is the name of a log and brings descriptors to read it from.
// Who connects to /run/memlogdq.sock sends one byte, a mode, and receives lines of JSON, each an entry.
//
// Under the name logread the same program shows them, and as logwrite it keeps them in files.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

const (
	logSocket   = "/run/linuxkit-external-logging.sock"
	querySocket = "/run/memlogdq.sock"
)

func main() {
	name := filepath.Base(os.Args[0])
	run := daemon
	switch name {
	case "logread":
		run = read
	case "logwrite":
		run = write
	}
	if err := run(flag.NewFlagSet(name, flag.ExitOnError), os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// inherited says that the sockets are the descriptors 3 and 4.
const inherited = "MEMLOGD_SOCKETS"

// daemon is the program memlogd.
func daemon(flags *flag.FlagSet, args []string) error {
	lines := flags.Int("max-lines", 5000, "entries that are kept")
	length := flags.Int("max-line-len", 1024, "bytes of a line that are kept")
	daemonize := flags.Bool("daemonize", false, "end as soon as logs are taken, and go on in a process of its own")
	flags.Parse(args)
	if *lines < 1 || *length < 1 {
		return errors.New("-max-lines and -max-line-len must be at least 1")
	}
	logs, queries, err := sockets()
	if err != nil {
		return err
	}
	if *daemonize && os.Getenv(inherited) == "" {
		return again(logs, queries)
	}
	b := newBuffer(*lines)
	go b.answer(queries)
	return b.receive(logs, *length)
}

func sockets() (*net.UnixConn, *net.UnixListener, error) {
	if os.Getenv(inherited) == "" {
		// Those of a daemon that was killed are in the way.
		for _, path := range []string{logSocket, querySocket} {
			if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
				return nil, nil, err
			}
		}
		logs, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: logSocket, Net: "unixgram"})
		if err != nil {
			return nil, nil, err
		}
		queries, err := net.ListenUnix("unix", &net.UnixAddr{Name: querySocket, Net: "unix"})
		return logs, queries, err
	}
	logs, err := net.FilePacketConn(os.NewFile(3, logSocket))
	if err != nil {
		return nil, nil, err
	}
	queries, err := net.FileListener(os.NewFile(4, querySocket))
	if err != nil {
		return nil, nil, err
	}
	return logs.(*net.UnixConn), queries.(*net.UnixListener), nil
}

// again starts this program once more, with the sockets.
func again(logs *net.UnixConn, queries *net.UnixListener) error {
	first, err1 := logs.File()
	second, err2 := queries.File()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = "memlogd"
	cmd.Env = append(os.Environ(), inherited+"=1")
	cmd.ExtraFiles = []*os.File{first, second}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd.Start()
}
