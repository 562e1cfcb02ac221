package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A console prints what the init does: one line per change of state, with the
// seconds since the kernel started.
type console struct {
	mu  sync.Mutex
	out []io.Writer
}

func (c *console) say(format string, args ...any) {
	c.write(fmt.Sprintf("[%7.2f] %s\n", sinceBoot().Seconds(), fmt.Sprintf(format, args...)))
}

// quote prints the output of a program, indented.
func (c *console) quote(text []byte) {
	var b bytes.Buffer
	for line := range bytes.Lines(text) {
		fmt.Fprintf(&b, "          | %s\n", bytes.TrimRight(line, "\r\n"))
	}
	c.write(b.String())
}

func (c *console) write(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, out := range c.out {
		io.WriteString(out, text) // an error has no better place to go
	}
}

// Write prints the output of a program as it arrives.
func (c *console) Write(text []byte) (int, error) {
	c.write(string(text))
	return len(text), nil
}

// also copies further lines to a log, for users who cannot see the console.
func (c *console) also(path string) {
	f, err := openLogFile(path)
	if err != nil {
		c.say("log: %v", err)
		return
	}
	c.mirror(f)
}

// mirror copies further lines to a writer.
func (c *console) mirror(w io.Writer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = append(c.out, w)
}

// drain waits until the terminal has sent everything that was written to it.
func (c *console) drain() {
	const drain = 1 // with any argument but 0, TCSBRK waits and sends no break
	unix.IoctlSetInt(int(os.Stdout.Fd()), unix.TCSBRK, drain)
}

// clock returns the time since the start of the kernel.
func clock() time.Duration {
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) // does not fail for this clock
	return time.Duration(now.Nano())
}

// bootTime is when the machine started, as a time of [clock]: 0, or the start of
// its container.
var bootTime = sync.OnceValue(func() time.Duration {
	if inContainer() {
		return clock()
	}
	return 0
})

func sinceBoot() time.Duration { return clock() - bootTime() }

// openConsole opens /dev/console as standard input, output and error. Without a
// console, output is discarded.
func openConsole() {
	fd, err := unix.Open("/dev/console", unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		if fd, err = unix.Open("/dev/null", unix.O_RDWR, 0); err != nil {
			return
		}
	}
	for target := range 3 {
		if fd != target {
			unix.Dup3(fd, target, 0)
		}
	}
	if fd > 2 {
		unix.Close(fd)
	}
}

// tail returns the last lines of a file.
func tail(path string, lines int) []byte {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return lastLines(text, lines)
}
