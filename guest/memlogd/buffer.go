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
)

// entry is a line of a log, as it is sent.
type entry struct {
	Time   time.Time `json:"time"` // when it came
	Source string    `json:"source"`
	Msg    string    `json:"msg"`
}

// Modes of a query.
const (
	dump       byte = iota // what is there
	follow                 // what comes from now on
	dumpFollow             // both
)

// buffer has the last entries.
type buffer struct {
	mu        sync.Mutex
	ring      []entry
	count     int // of all entries there have been; the newest is in ring[(count-1) % len(ring)]
	followers map[chan entry]bool
}

func newBuffer(lines int) *buffer {
	return &buffer{ring: make([]entry, lines), followers: map[chan entry]bool{}}
}

func (b *buffer) add(source, msg string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := entry{time.Now(), source, msg}
	b.ring[b.count%len(b.ring)] = e
	b.count++
	for follower := range b.followers {
		select {
		case follower <- e:
		default: // it is slow, and misses this one
		}
	}
}

// entries are what is there, and if wanted a channel of what will come, to be given to leave.
func (b *buffer) entries(mode byte) (there []entry, coming chan entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if mode != follow {
		for i := max(0, b.count-len(b.ring)); i < b.count; i++ {
			there = append(there, b.ring[i%len(b.ring)])
		}
	}
	if mode != dump {
		coming = make(chan entry, len(b.ring))
		b.followers[coming] = true
	}
	return there, coming
}

func (b *buffer) leave(coming chan entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.followers, coming)
}

// receive takes logs until the socket fails.
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
		return nil, fmt.Errorf("a datagram with a wrong control message: %w", err)
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
	syscall.SetNonblock(fd, true) // so that it does not take a thread; where it cannot be, it does
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

// answer serves queries.
func (b *buffer) answer(queries *net.UnixListener) {
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
	if _, err := io.ReadFull(conn, mode[:]); err != nil || mode[0] > dumpFollow {
		return
	}
	there, coming := b.entries(mode[0])
	if coming != nil {
		defer b.leave(coming)
	}
	encoder := json.NewEncoder(conn)
	for _, e := range there {
		if encoder.Encode(e) != nil {
			return
		}
	}
	if coming == nil {
		return
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		io.Copy(io.Discard, conn)
	}()
	for {
		select {
		case e := <-coming:
			if encoder.Encode(e) != nil {
				return
			}
		case <-gone:
			return
		}
	}
}
