package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-build/slipway/guest/bundle"
	"github.com/slipway-build/slipway/internal/contract/policy"
)

// A play is an engine whose containers behave as a test says. Times are those
// of a synctest bubble.
type play struct {
	*machine
	begin time.Time

	mu      sync.Mutex
	acts    map[string][]act // by name; the last one repeats
	trace   []string
	removed int
	check   func(ctx context.Context, at time.Duration) error // of the health of all services; at counts from begin
}

// An act is one run of a container.
type act struct {
	err   error          // why it cannot be started
	takes time.Duration  // to start
	ends  time.Duration  // by itself, after it has started; 0: never
	fails bool           // whether it fails when it ends by itself
	obeys syscall.Signal // the signal that ends it
}

func newPlay(out io.Writer) *play {
	return &play{machine: testMachine(out), begin: time.Now(), acts: map[string][]act{}}
}

func (p *play) note(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trace = append(p.trace, time.Since(p.begin).String()+" "+what)
}

func (p *play) start(ctx context.Context, b *bundle.Bundle, _ *stream, _ bool) (*task, error) {
	p.mu.Lock()
	next := p.acts[b.Name][0]
	if len(p.acts[b.Name]) > 1 {
		p.acts[b.Name] = p.acts[b.Name][1:]
	}
	p.mu.Unlock()
	p.note("start " + b.Name)
	select {
	case <-time.After(next.takes):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if next.err != nil {
		return nil, next.err
	}
	t := &task{pid: 1 << 22, done: make(chan struct{})} // above the largest process id
	end := sync.OnceFunc(func() {
		if t.end = "ended"; next.fails {
			t.status = 3
		}
		close(t.done)
	})
	t.signal = func(signal syscall.Signal) error {
		p.note(signal.String() + " " + b.Name)
		if signal == next.obeys {
			end()
		}
		return nil
	}
	if next.ends > 0 {
		time.AfterFunc(next.ends, end)
	}
	return t, nil
}

func (p *play) exec(ctx context.Context, _ *bundle.Bundle, _ []string) error {
	return p.check(ctx, time.Since(p.begin))
}

func (p *play) remove(*bundle.Bundle) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.removed++
}

// add adds a service and supervises it.
func (p *play) add(name string, order policy.Policy, needs []*service, acts ...act) *service {
	s := newService(name)
	s.bundle, s.policy, s.needs, s.out, s.times, s.stream, s.turns = &bundle.Bundle{Name: name}, order, needs, p.out, p.times, &stream{}, p.turns
	s.engine = func(context.Context) (engine, error) { return p, nil }
	s.finished = func(status int) { p.note(fmt.Sprintf("finished %d", status)) }
	p.acts[name] = acts
	p.services = append(p.services, s)
	go s.supervise()
	return s
}

func (p *play) want(t *testing.T, lines ...string) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if diff := cmp.Diff(lines, p.trace); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(io.Discard)
		s := p.add("web", policy.Policy{Restart: policy.OnFailure}, nil,
			act{err: errors.New("no such file")},
			act{ends: time.Second, fails: true},
			act{ends: time.Second, fails: true},
			act{ends: 2 * time.Minute, fails: true}, // long enough to reset the delay
			act{ends: time.Second},                  // succeeds
		)
		time.Sleep(time.Hour)
		p.want(t, "0s start web",
			"1s start web",    // delay of 1 s
			"4s start web",    // ran for 1 s, delay of 2 s
			"9s start web",    // 1 s, 4 s
			"2m10s start web", // 2 min, 1 s
		)
		if s.state != ended || s.starts != 4 || p.removed != 5 {
			t.Errorf("%s, %d starts, %d removed", s.state, s.starts, p.removed)
		}
		if err := s.turnOn(); err != nil || s.state != running {
			t.Errorf("start what has ended: %v, %s", err, s.state)
		}
		p.stopServices()
	})
}

// The machine stops when a batch job has ended for good, with its status.
func TestBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(io.Discard)
		p.add("job", policy.Policy{Batch: true, Restart: policy.OnFailure}, nil,
			act{ends: time.Second, fails: true},
			act{ends: time.Second},
		)
		p.add("other", policy.Policy{Batch: true}, nil, act{ends: 10 * time.Second, fails: true})
		time.Sleep(time.Hour)
		for _, want := range []string{"3s finished 0", "10s finished 3"} {
			if !slices.Contains(p.trace, want) {
				t.Errorf("no %q in %q", want, p.trace)
			}
		}
		p.stopServices()
	})
}

// Services restart only as their policy says, and the delay has a limit.
func TestRestartPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(io.Discard)
		once := p.add("once", policy.Policy{}, nil, act{ends: time.Second, fails: true})
		always := p.add("always", policy.Policy{Restart: policy.Always}, nil, act{ends: time.Second})
		time.Sleep(time.Hour)
		if once.starts != 1 || once.state != failed {
			t.Errorf("%d starts, %s", once.starts, once.state)
		}
		if want := 6 + 3600/61; always.starts < want-2 || always.starts > want+2 { // delays of 1 to 32 s, then of a minute
			t.Errorf("%d starts in an hour, want about %d", always.starts, want)
		}
		p.stopServices()
	})
}

// A service that needs another starts after it and stops before it.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		p := newPlay(&said)
		polite := act{obeys: syscall.SIGTERM}
		database := p.add("database", policy.Policy{Restart: policy.OnFailure}, nil, act{err: errors.New("busy")}, act{takes: time.Second, obeys: syscall.SIGTERM})
		broken := p.add("broken", policy.Policy{}, nil, act{err: errors.New("no such file")})
		web := p.add("web", policy.Policy{}, []*service{database}, polite)
		dependent := p.add("dependent", policy.Policy{}, []*service{broken}, polite)
		time.Sleep(time.Minute)
		if dependent.state != failed || web.state != running {
			t.Errorf("dependent: %s, web: %s", dependent.state, web.state)
		}
		p.mu.Lock()
		begin := p.trace[2:]
		p.mu.Unlock()
		if diff := cmp.Diff([]string{"1s start database", "2s start web"}, begin); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
		p.stopServices()
		p.mu.Lock()
		end := p.trace[4:]
		p.mu.Unlock()
		if diff := cmp.Diff([]string{"1m0s terminated web", "1m0s terminated database"}, end); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
		if want := "service dependent: failed: needs service broken, which did not start"; !strings.Contains(said.String(), want) {
			t.Errorf("%q is not said:\n%s", want, said.String())
		}
	})
}

// One service ends when asked, one must be killed, one has ended by itself, and
// one cannot be killed.
func TestStopServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		p := newPlay(&said)
		p.add("stubborn", policy.Policy{Timeout: 3 * time.Second}, nil, act{obeys: syscall.SIGKILL})
		p.add("immortal", policy.Policy{}, nil, act{})
		p.add("polite", policy.Policy{}, nil, act{obeys: syscall.SIGTERM})
		p.add("gone", policy.Policy{}, nil, act{ends: time.Second})
		time.Sleep(time.Minute)
		begin := time.Now()
		p.stopServices()
		if took := time.Since(begin); took != 12*time.Second {
			t.Errorf("took %v, want 10 s for SIGTERM and 2 s for SIGKILL", took)
		}
		for line, want := range map[string]bool{
			"service stubborn: still running 3s after SIGTERM":  true,
			"service stubborn: still running 2s after SIGKILL":  false,
			"service immortal: still running 10s after SIGTERM": true,
			"service immortal: still running 2s after SIGKILL":  true,
			"service polite: still running":                     false,
		} {
			if strings.Contains(said.String(), line) != want {
				t.Errorf("%q said: %v, want %v; all:\n%s", line, !want, want, said.String())
			}
		}
	})
}

// A start is not interrupted: the container is created and then stopped in
// order.
func TestStopDuringStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(io.Discard)
		p.add("slow", policy.Policy{}, nil, act{takes: 5 * time.Second, obeys: syscall.SIGTERM})
		time.Sleep(time.Second)
		p.stopServices()
		p.want(t, "0s start slow", "5s terminated slow")
	})
}

// As many services start at once as there are turns, each with its own time.
// One that is too slow is removed and tried again, although its policy does not
// restart it.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		p := newPlay(&said)
		p.turns = make(chan struct{}, 1)
		first := act{takes: 90 * time.Second}
		p.add("a", policy.Policy{}, nil, first)
		synctest.Wait()
		p.add("b", policy.Policy{}, nil, act{takes: 10 * time.Minute}, first)
		synctest.Wait()
		p.add("c", policy.Policy{}, nil, first)
		waits := p.add("d", policy.Policy{}, nil, first)
		synctest.Wait()
		waits.turnOff()
		time.Sleep(time.Hour)
		p.want(t, "0s start a",
			"1m30s start b", // 90 s
			"3m30s start c", // the timeout of b
			"5m0s start b",  // 90 s; meanwhile the delay of b has passed
		)
		if p.started() != 3 || waits.state != stopped {
			t.Errorf("%d services have started, d: %s", p.started(), waits.state)
		}
		if want := "service b: failed: not started within 2m0s; restarting in 1s"; !strings.Contains(said.String(), want) {
			t.Errorf("%q is not said:\n%s", want, said.String())
		}
		p.stopServices()
	})
}

// The requests of the program service.
func TestControl(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(io.Discard)
		p.add("web", policy.Policy{Restart: policy.Always, After: []string{"x"}}, nil, act{obeys: syscall.SIGTERM})
		synctest.Wait()
		p.add("bad", policy.Policy{}, nil, act{err: errors.New("no such file")})
		time.Sleep(time.Second)
		for _, c := range []struct{ command, want, err string }{
			{"list", "web   running", ""},
			{"list", "bad   failed", ""},
			{"status web", "restart   always\nafter     x\n", ""},
			{"stop web", "web: stopped", ""},
			{"start web", "web: running, pid", ""},
			{"restart web", "web: running, pid", ""},
			{"start bad", "", "service bad: failed: no such file"},
			{"status wbe", "", "no service wbe (services: web, bad)"},
			{"timeline", "service web", ""},
			{"timeline --svg", "<svg xmlns", ""},
			{"dance", "", "dance: unknown command"},
		} {
			text, err := p.control(t.Context(), strings.Fields(c.command))
			if !strings.Contains(text, c.want) || (err != nil || c.err != "") && (err == nil || err.Error() != c.err) {
				t.Errorf("service %s: %q, %v", c.command, text, err)
			}
		}
		p.want(t, "0s start web", "0s start bad", "1s terminated web", "1s start web", "1s terminated web", "1s start web", "1s start bad")
		p.stopServices()
	})
}
