package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/slipway-build/slipway/guest/logfile"
	"github.com/slipway-build/slipway/guest/memlog"
)

// read is the program logread. It prints lines of TIME;LOG;TEXT.
func read(flags *flag.FlagSet, args []string) error {
	socket := flags.String("socket", memlog.Socket, "socket of memlogd")
	both := flags.Bool("F", false, "show existing and future entries")
	future := flags.Bool("f", false, "show only future entries")
	flags.Parse(args)
	mode := memlog.Dump
	if *both {
		mode = memlog.DumpFollow
	} else if *future {
		mode = memlog.Follow
	}
	return memlog.Query(*socket, mode, func(e memlog.Entry) {
		fmt.Printf("%s;%s;%s\n", e.Time.Format(time.RFC3339Nano), strings.ReplaceAll(e.Source, ";", `\;`), e.Msg)
	})
}

// write is the program logwrite. It writes each log to a file, in lines of TIME
// LOG TEXT.
func write(flags *flag.FlagSet, args []string) error {
	socket := flags.String("socket", memlog.Socket, "socket of memlogd")
	dir := flags.String("log-dir", "/var/log", "directory of the log files")
	keep := flags.Int("max-log-files", 10, "number of files per log")
	size := flags.Int64("max-log-size", 1<<20, "size of a file in bytes")
	flags.Parse(args)
	if *keep < 2 || *size < 1 {
		return errors.New("-max-log-files must be at least 2, and -max-log-size 1")
	}
	files := map[string]*logfile.File{}
	err := memlog.Query(*socket, memlog.DumpFollow, func(e memlog.Entry) {
		if e.Source == "logwrite" { // its own messages, which would repeat forever
			return
		}
		// The name comes from an untrusted sender. It must stay in the
		// directory.
		name := strings.ReplaceAll(e.Source, "/", "_") + ".log"
		file := files[name]
		if file == nil {
			var err error
			if file, err = logfile.Open(filepath.Join(*dir, name), *size, *keep-1); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return
			}
			files[name] = file
		}
		if _, err := fmt.Fprintf(file, "%s %s %s\n", e.Time.Format(time.RFC3339), e.Source, e.Msg); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	})
	if err == nil {
		err = errors.New("memlogd has ended")
	}
	return err
}
