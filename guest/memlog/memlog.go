// Package memlog is the protocol of memlogd's clients, which is that of LinuxKit
// (https://github.com/linuxkit/linuxkit/blob/master/docs/logging.md): the client
// sends one byte, a mode, and receives entries as lines of JSON.
package memlog

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Socket is where memlogd serves its clients.
const Socket = "/run/memlogdq.sock"

// An Entry is a line of a log, in the form in which it is sent.
type Entry struct {
	Time   time.Time `json:"time"` // of arrival
	Source string    `json:"source"`
	Msg    string    `json:"msg"`
}

// Modes of a query.
const (
	Dump       byte = iota // existing entries
	Follow                 // future entries
	DumpFollow             // both
)

// Query queries memlogd and calls show for each entry until there are no more.
func Query(socket string, mode byte, show func(Entry)) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return fmt.Errorf("%w (does memlogd run in this machine?)", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte{mode}); err != nil {
		return err
	}
	for decoder := json.NewDecoder(conn); ; {
		var e Entry
		switch err := decoder.Decode(&e); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		show(e)
	}
}
