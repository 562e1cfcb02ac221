package run

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/console"

	"github.com/slipway-build/slipway/internal/vm"
)

// A screen collects what a terminal shows.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *screen) Write(data []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(data)
}

// await waits until the screen shows a text n times.
func (s *screen) await(t *testing.T, text string, n int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		s.mu.Lock()
		got := s.text.String()
		s.mu.Unlock()
		if strings.Count(got, text) >= n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the screen does not show %q %d times:\n%s", text, n, got)
		}
	}
}

// TestConsole uses the console of a machine in a pseudo-terminal.
func TestConsole(t *testing.T) {
	fakeQEMU(t)
	s := openStore(t)
	keys, name, err := console.NewPty()
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Close()
	in, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	seen := &screen{}
	terminal := newTerminal(in, seen)
	if !terminal.IsTerminal() {
		t.Fatal("the pseudo-terminal is not a terminal")
	}
	// The second machine uses the same terminal, as with --watch.
	for n := 1; n <= 2; n++ {
		e, err := s.Create("web", true)
		if err != nil {
			t.Fatal(err)
		}
		e.Config = vm.Config{Disk: disk, NoNetwork: true, Console: terminal}
		session, err := Start(t.Context(), e)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- terminal.Console(t.Context(), session) }()
		press := func(text string) {
			if _, err := keys.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		seen.await(t, "ctrl-] opens a menu", n)
		press("\x1d")
		seen.await(t, "p: power off", 2*n-1)
		press("x") // back
		time.Sleep(100 * time.Millisecond)
		press("ls\r")
		seen.await(t, "typed b'ls\\r'", n)
		press("\x1d")
		seen.await(t, "p: power off", 2*n)
		press("p")
		seen.await(t, "Powering off", n)
		if err := <-ended; err != nil {
			t.Errorf("after the power button: %v", err)
		}
		if err := session.Close(nil, false); err != nil {
			t.Error(err)
		}
	}
	// Another process may use the terminal when the context is done.
	e, err := s.Create("web", true)
	if err != nil {
		t.Fatal(err)
	}
	e.Config = vm.Config{Disk: disk, NoNetwork: true, Console: terminal}
	session, err := Start(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	time.AfterFunc(100*time.Millisecond, func() { cancel(cause) })
	if err := terminal.Console(ctx, session); !errors.Is(err, cause) {
		t.Errorf("canceled: %v", err)
	}
	if err := session.Close(nil, false); err != nil {
		t.Error(err)
	}
}
