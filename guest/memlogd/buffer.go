package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/slipway-build/slipway/guest/memlog"
)

// A buffer holds the last entries.
type buffer struct {
	mu        sync.Mutex
	ring      []memlog.Entry
	count     int // entries so far; the newest is ring[(count-1) % len(ring)]
	followers map[chan memlog.Entry]bool
}

func newBuffer(lines int) *buffer {
	return &buffer{ring: make([]memlog.Entry, lines), followers: map[chan memlog.Entry]bool{}}
}

func (b *buffer) add(source, msg string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := memlog.Entry{Time: time.Now(), Source: source, Msg: msg}
	b.ring[b.count%len(b.ring)] = e
	b.count++
	for follower := range b.followers {
		select {
		case follower <- e:
		default: // too slow: it misses this entry
		}
	}
}

// entries returns the existing entries and a channel of future ones, as the
// mode says. The caller passes the channel to leave.
func (b *buffer) entries(mode byte) (existing []memlog.Entry, future chan memlog.Entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if mode != memlog.Follow {
		for i := max(0, b.count-len(b.ring)); i < b.count; i++ {
			existing = append(existing, b.ring[i%len(b.ring)])
		}
	}
	if mode != memlog.Dump {
		future = make(chan memlog.Entry, len(b.ring))
		b.followers[future] = true
	}
	return existing, future
}

func (b *buffer) leave(future chan memlog.Entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.followers, future)
}

// receive receives logs until the socket fails.
func (b *buffer) receive(logs *net.UnixConn, length int) error {
	name, control := make([]byte, 512), make([]byte, 512)
	for {
		n, controlLength, _, _, err := logs.ReadMsgUnix(name, control)
		if err != nil {
			return err
		}
		files, err := descriptors(control[:controlLength])
		if err != nil {
			b.add("memlogd", err.Error())
		}
		for _, fd := range files {
			go b.read(string(name[:n]), fd, length)
		}
	}
}

func descriptors(control []byte) (all []int, err error) {
	messages, err := syscall.ParseSocketControlMessage(control)
	if err != nil {
		return nil, fmt.Errorf("a datagram with an invalid control message: %w", err)
	}
	for _, message := range messages {
		files, err := syscall.ParseUnixRights(&message)
		if err != nil {
			return all, fmt.Errorf("a datagram without a descriptor: %w", err)
		}
		all = append(all, files...)
	}
	return all, nil
}

// read reads a log to its end.
func (b *buffer) read(source string, fd, length int) {
	syscall.SetNonblock(fd, true) // so that it needs no thread; on an error it uses one
	file := os.NewFile(uintptr(fd), source)
	defer file.Close()
	lines := bufio.NewReaderSize(file, length)
	for {
		line, more, err := lines.ReadLine()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				b.add("memlogd", fmt.Sprintf("log %v", err))
			}
			return
		}
		b.add(source, string(line[:min(len(line), length)]))
		for more && err == nil {
			_, more, err = lines.ReadLine()
		}
	}
}

// serveQueries serves queries.
func (b *buffer) serveQueries(queries *net.UnixListener) {
	for {
		conn, err := queries.Accept()
		if err != nil {
			b.add("memlogd", err.Error())
			time.Sleep(time.Second)
			continue
		}
		go b.serve(conn)
	}
}

func (b *buffer) serve(conn net.Conn) {
	defer conn.Close()
	var mode [1]byte
	if _, err := io.ReadFull(conn, mode[:]); err != nil || mode[0] > memlog.DumpFollow {
		return
	}
	existing, future := b.entries(mode[0])
	if future != nil {
		defer b.leave(future)
	}
	encoder := json.NewEncoder(conn)
	for _, e := range existing {
		if encoder.Encode(e) != nil {
			return
		}
	}
	if future == nil {
		return
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		io.Copy(io.Discard, conn)
	}()
	for {
		select {
		case e := <-future:
			if encoder.Encode(e) != nil {
				return
			}
		case <-gone:
			return
		}
	}
}
