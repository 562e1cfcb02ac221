package run

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/containerd/console"
	"golang.org/x/crypto/ssh"

	"github.com/slipway-build/slipway/internal/vm"
)

// escape is the key that leaves the console, ctrl-]. It does the same in telnet
// and virsh.
const escape = 0x1d

// A Terminal connects the user's terminal to the console of a machine, or to a
// shell in it. As an [io.Writer], it takes the output of the console.
type Terminal struct {
	in  io.Reader
	out io.Writer
	raw console.Console // nil if the input is not a terminal

	mu      sync.Mutex
	shown   bool          // whether the output of the console goes to the terminal
	typed   bool          // whether the user has typed on the console
	input   func([]byte)  // what takes the keys
	pressed chan byte     // keys in the menu
	escaped chan struct{} // ctrl-]
	reading sync.Once
}

// NewTerminal returns the terminal of this process, which shows the console.
func NewTerminal() *Terminal { return newTerminal(os.Stdin, os.Stdout) }

func newTerminal(in *os.File, out io.Writer) *Terminal {
	t := &Terminal{in: in, out: out, shown: true, pressed: make(chan byte), escaped: make(chan struct{}, 1)}
	if c, err := console.ConsoleFromFile(in); err == nil {
		t.raw = c
	}
	return t
}

// IsTerminal reports whether a person can type.
func (t *Terminal) IsTerminal() bool { return t.raw != nil }

func (t *Terminal) Write(data []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.shown {
		return t.out.Write(data)
	}
	return len(data), nil
}

// Say prints a line for the user.
func (t *Terminal) Say(format string, args ...any) {
	if t.raw == nil {
		fmt.Fprintf(os.Stderr, "slipway: "+format+"\n", args...)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.out, "\r\n\x1b[7m slipway \x1b[0m "+format+"\r\n", args...)
}

// show shows or hides the console.
func (t *Terminal) show(on bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.shown = on
}

// send makes a function take the keys.
func (t *Terminal) send(to func([]byte)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.input = to
}

// Console connects the terminal to the console of a machine until the machine
// ends or ctx is done. When ssh is ready and the user has not typed anything, it
// opens a shell. It returns how the machine ended.
func (t *Terminal) Console(ctx context.Context, s *Session) error {
	if t.raw == nil {
		return s.Wait(ctx)
	}
	if err := t.raw.SetRaw(); err != nil {
		return err
	}
	defer t.raw.Reset()
	t.Say("This is the console. ctrl-] opens a menu: shell, power off, kill.")
	toConsole := func(keys []byte) {
		t.mu.Lock()
		t.typed = true
		t.mu.Unlock()
		s.Type(string(keys))
	}
	t.send(toConsole)
	defer t.send(nil)
	t.startReading()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.Wait(ctx) }()
	ready := make(chan time.Duration, 1)
	if !s.Entry.Config.NoNetwork {
		go func() {
			if after, err := s.WaitSSH(ctx, s.Entry.Key); err == nil {
				ready <- after
			}
		}()
	}
	for {
		shell, message := false, ""
		select {
		case err := <-ended:
			return err
		case after := <-ready:
			t.mu.Lock()
			shell = !t.typed
			t.mu.Unlock()
			if shell {
				message = fmt.Sprintf("ssh is ready after %.1f s. This is a shell; exit returns to the console.", after.Seconds())
			} else {
				t.Say("ssh is ready after %.1f s: ctrl-] s opens a shell.", after.Seconds())
			}
		case <-t.escaped:
			switch t.menu(ended) {
			case 's':
				shell = true
			case 'p':
				t.Say("Powering off. ctrl-] k kills the machine.")
				if err := s.PressPowerButton(ctx); err != nil {
					t.Say("%v", err)
				}
			case 'k':
				s.Kill()
				return <-ended
			}
			t.send(toConsole)
		}
		if shell {
			t.show(false)
			_, err := t.shell(ctx, s.SSHAddress(), s.Entry.Key, message)
			t.show(true)
			if err != nil {
				t.Say("%v", err)
			}
			t.Say("This is the console. ctrl-] p powers the machine off, ctrl-] s opens a shell.")
			t.send(toConsole)
		}
	}
}

// menu asks what to do.
func (t *Terminal) menu(ended chan error) byte {
	t.send(func(keys []byte) {
		select {
		case t.pressed <- keys[0]:
		default:
		}
	})
	t.show(false)
	defer t.show(true)
	t.Say("s: shell by ssh   p: power off   k: kill   other keys: back")
	select {
	case key := <-t.pressed:
		return key
	case err := <-ended:
		ended <- err
		return 0
	}
}

// startReading starts to pass keys on. That ends with the process, because
// nothing can interrupt a read from a terminal.
func (t *Terminal) startReading() { t.reading.Do(func() { go t.read() }) }

// read passes keys on, except the one that escapes.
func (t *Terminal) read() {
	keys := make([]byte, 1024)
	for {
		n, err := t.in.Read(keys)
		rest := keys[:n]
		for len(rest) > 0 {
			at := 0
			for at < len(rest) && rest[at] != escape {
				at++
			}
			if at > 0 {
				t.mu.Lock()
				input := t.input
				t.mu.Unlock()
				if input != nil { // without the lock, because it can wait for output to be read
					input(rest[:at])
				}
			}
			if at == len(rest) {
				break
			}
			rest = rest[at+1:]
			select {
			case t.escaped <- struct{}{}:
			default:
			}
		}
		if err != nil {
			return
		}
	}
}

// shell opens a shell in the terminal and returns its exit status. ctrl-] closes
// it. The shell gets all keys that the user types after the message.
func (t *Terminal) shell(ctx context.Context, address string, key vm.Key, message string) (int, error) {
	keys, closed := make(chan []byte, 64), make(chan struct{})
	defer close(closed)
	t.send(func(k []byte) {
		select {
		case keys <- slices.Clone(k):
		case <-closed:
		}
	})
	defer t.send(nil)
	if message != "" {
		t.Say("%s", message)
	}
	session, stdin, logOut, err := logIn(ctx, address, key)
	if err != nil {
		return 0, err
	}
	defer logOut()
	session.Stdout, session.Stderr = t.out, t.out
	size, _ := t.raw.Size()
	if err := session.RequestPty(terminalType(), int(size.Height), int(size.Width), ssh.TerminalModes{}); err != nil {
		return 0, fmt.Errorf("ssh: %w", err)
	}
	defer followSize(t.raw, session)()
	if err := session.Shell(); err != nil {
		return 0, fmt.Errorf("ssh: %w", err)
	}
	go func() {
		for {
			select {
			case k := <-keys:
				stdin.Write(k)
			case <-closed:
				return
			}
		}
	}()
	done := make(chan error, 1)
	go func() { done <- session.Wait() }()
	select {
	case err := <-done:
		return vm.ExitStatus(err), nil
	case <-t.escaped:
		return 0, nil
	}
}

// logIn opens a session. The returned pipe takes the place of session.Stdin, whose
// copy would have to end before Wait returns. logOut ends the connection, which
// ends with ctx too.
func logIn(ctx context.Context, address string, key vm.Key) (session *ssh.Session, stdin io.WriteCloser, logOut func(), err error) {
	client, err := vm.Login(ctx, address, key)
	if err != nil {
		return nil, nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { client.Close() })
	logOut = func() {
		stop()
		client.Close()
	}
	if session, err = client.NewSession(); err != nil {
		logOut()
		return nil, nil, nil, fmt.Errorf("ssh: %w", err)
	}
	if stdin, err = session.StdinPipe(); err != nil {
		logOut()
		return nil, nil, nil, err
	}
	return session, stdin, logOut, nil
}

func terminalType() string {
	if name := os.Getenv("TERM"); name != "" {
		return name
	}
	return "vt100"
}

// SSH logs in to a machine and runs a command, or a shell if the command is
// empty. It returns the exit status.
func SSH(ctx context.Context, r Record, command string) (int, error) {
	t := NewTerminal()
	if command == "" && t.raw != nil {
		if err := t.raw.SetRaw(); err != nil {
			return 0, err
		}
		defer t.raw.Reset()
		t.startReading()
		return t.shell(ctx, r.SSHAddress, r.Key, "")
	}
	session, stdin, logOut, err := logIn(ctx, r.SSHAddress, r.Key)
	if err != nil {
		return 0, err
	}
	defer logOut()
	session.Stdout, session.Stderr = os.Stdout, os.Stderr
	if command == "" {
		err = session.Shell()
	} else {
		err = session.Start(command)
	}
	if err != nil {
		return 0, fmt.Errorf("ssh: %w", err)
	}
	go func() {
		io.Copy(stdin, os.Stdin)
		stdin.Close()
	}()
	err = session.Wait()
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if missing := (*ssh.ExitMissingError)(nil); errors.As(err, &missing) {
		return vm.ExitStatus(err), errors.New("ssh: the connection ended before the command")
	}
	return vm.ExitStatus(err), nil
}
