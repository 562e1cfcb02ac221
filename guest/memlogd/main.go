// Command memlogd keeps the last lines of all logs of a machine in memory and
// serves them to clients. It is compatible with the program of that name in
// LinuxKit (https://github.com/linuxkit/linuxkit/blob/master/docs/logging.md).
//
// It receives logs at the datagram socket /run/linuxkit-external-logging.sock:
// a datagram holds the name of a log and passes descriptors to read it from. A
// client of /run/memlogdq.sock sends one byte, a mode, and receives entries as
// lines of JSON.
//
// Under the name logread the same program prints the logs, and under the name
// logwrite it writes them to files.
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

	"github.com/slipway-build/slipway/guest/logfile"
	"github.com/slipway-build/slipway/guest/memlog"
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

// inherited is set when the sockets are the descriptors 3 and 4.
const inherited = "MEMLOGD_SOCKETS"

// daemon is the program memlogd.
func daemon(flags *flag.FlagSet, args []string) error {
	lines := flags.Int("max-lines", 5000, "number of entries to keep")
	length := flags.Int("max-line-len", 1024, "number of bytes of a line to keep")
	daemonize := flags.Bool("daemonize", false, "continue in the background once the sockets exist")
	flags.Parse(args)
	if *lines < 1 || *length < 1 {
		return errors.New("-max-lines and -max-line-len must be at least 1")
	}
	logs, queries, err := sockets()
	if err != nil {
		return err
	}
	if *daemonize && os.Getenv(inherited) == "" {
		return restart(logs, queries)
	}
	b := newBuffer(*lines)
	go b.serveQueries(queries)
	return b.receive(logs, *length)
}

func sockets() (*net.UnixConn, *net.UnixListener, error) {
	if os.Getenv(inherited) == "" {
		// Sockets of a killed daemon would prevent listening.
		for _, path := range []string{logfile.DaemonSocket, memlog.Socket} {
			if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
				return nil, nil, err
			}
		}
		logs, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: logfile.DaemonSocket, Net: "unixgram"})
		if err != nil {
			return nil, nil, err
		}
		queries, err := net.ListenUnix("unix", &net.UnixAddr{Name: memlog.Socket, Net: "unix"})
		return logs, queries, err
	}
	logs, err := net.FilePacketConn(os.NewFile(3, logfile.DaemonSocket))
	if err != nil {
		return nil, nil, err
	}
	queries, err := net.FileListener(os.NewFile(4, memlog.Socket))
	if err != nil {
		return nil, nil, err
	}
	return logs.(*net.UnixConn), queries.(*net.UnixListener), nil
}

// restart starts this program again, with the sockets.
func restart(logs *net.UnixConn, queries *net.UnixListener) error {
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
