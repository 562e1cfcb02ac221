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

// console is where the machine tells what it does: one line per change of state, with the seconds since the kernel started.
type console struct {
	mu  sync.Mutex
	out []io.Writer
}

func (c *console) say(format string, args ...any) {
	c.write(fmt.Sprintf("[%7.2f] %s\n", sinceBoot().Seconds(), fmt.Sprintf(format, args...)))
}

// quote shows text of somebody else, indented.
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
		io.WriteString(out, text) // there is no better place to tell of a failure
	}
}

// Write shows text of a program as it comes.
func (c *console) Write(text []byte) (int, error) {
	c.write(string(text))
	return len(text), nil
}

// also copies what is said from now on to a log, for those who cannot see the console.
func (c *console) also(path string) {
	f, err := openLogFile(path)
	if err != nil {
		c.say("log: %v", err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = append(c.out, f)
}

// drain waits until the terminal has sent what was written to it.
func (c *console) drain() {
	const drain = 1 // any argument but 0 makes TCSBRK wait without sending a break
	unix.IoctlSetInt(int(os.Stdout.Fd()), unix.TCSBRK, drain)
}

// origin is when the machine began, after the start of the kernel: a container begins later.
var origin time.Duration

func sinceBoot() time.Duration {
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) // cannot fail with a clock that the kernel has
	return time.Duration(now.Nano()) - origin
}

// openConsole makes /dev/console standard input, output and error. Without one, what is said goes nowhere.
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

// tail gives the last lines of a file.
func tail(path string, lines int) []byte {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return lastLines(text, lines)
}
