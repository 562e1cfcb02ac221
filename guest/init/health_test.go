package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/contract/policy"
)

// checked returns the policy of a service with a check that runs a program.
func checked(t *testing.T, annotations ...string) policy.Policy {
	t.Helper()
	all := map[string]string{"build.slipway.health": "exec check"}
	for i := 0; i < len(annotations); i += 2 {
		all["build.slipway."+annotations[i]] = annotations[i+1]
	}
	p, err := policy.Parse(contract.Services, all)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A service is healthy after its first successful check, and restarts after
// three that fail, not after two.
func TestUnhealthy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		p := newPlay(&said)
		down := func(at, from, to time.Duration) bool { return at >= from && at < to }
		p.check = func(_ context.Context, at time.Duration) error {
			if down(at, 0, 5*time.Second) || down(at, 50*time.Second, 110*time.Second) || at > 4*time.Minute && at < 6*time.Minute {
				return errors.New("no answer")
			}
			return nil
		}
		web := p.add("web", checked(t, "restart", "on-failure"), nil, act{obeys: syscall.SIGTERM})
		time.Sleep(3 * time.Second)
		if want := "web   running  starting"; !strings.Contains(p.list(), want) {
			t.Errorf("%q is not in the list:\n%s", want, p.list())
		}
		time.Sleep(4 * time.Minute)
		if web.health != healthy || web.starts != 1 || !strings.Contains(p.list(), "running  healthy") {
			t.Errorf("%+v", web)
		}
		if status := web.status(); !strings.Contains(status, "health    healthy\n") || strings.Contains(status, "problem") {
			t.Error(status)
		}
		time.Sleep(100 * time.Second)
		if web.health != untested || web.starts != 2 || !strings.Contains(web.status(), "problem   no answer") {
			t.Errorf("%s %d\n%s", web.health, web.starts, web.status())
		}
		time.Sleep(time.Hour)
		if web.health != healthy || web.starts != 2 {
			t.Errorf("%s %d", web.health, web.starts)
		}
		p.stopServices()
		if web.health != unchecked {
			t.Errorf("stopped, and %s", web.health)
		}
		for _, want := range []string{
			"service web: healthy 6.00 s after its start\n", "service web: unhealthy: no answer\n", "service web: unhealthy, ended; restarting in 1s\n",
		} {
			if !strings.Contains(said.String(), want) {
				t.Errorf("%q is not said:\n%s", want, said.String())
			}
		}
	})
}

// The delay grows if a service never becomes healthy, however long it runs.
// Checks that take too long have failed.
func TestNeverHealthy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(os.Stderr)
		p.check = func(ctx context.Context, _ time.Duration) error {
			<-ctx.Done()
			return ctx.Err()
		}
		web := p.add("web", checked(t, "restart", "always", "health-timeout", "5s", "health-interval", "10s", "health-start-period", "1m30s"), nil, act{obeys: syscall.SIGTERM})
		time.Sleep(time.Minute)
		if web.problem != "no answer within 5s" {
			t.Error(web.problem)
		}
		time.Sleep(8 * time.Minute)
		// 13 checks within the start period, each 5 s and a pause of 2 s, then 3
		// with pauses of 10 s.
		p.want(t, "0s start web", "2m6s terminated web",
			"2m7s start web", "4m13s terminated web",
			"4m15s start web", "6m21s terminated web",
			"6m25s start web", "8m31s terminated web",
			"8m39s start web")
		p.stopServices()
	})
}

// Without a restart policy the list shows that a service is unhealthy, and
// nothing else happens.
func TestUnhealthyWithoutRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		p := newPlay(&said)
		p.check = func(context.Context, time.Duration) error { return errors.New("exit 1") }
		web := p.add("web", checked(t), nil, act{obeys: syscall.SIGTERM})
		time.Sleep(time.Hour)
		if web.health != unhealthy || web.starts != 1 || web.state != running {
			t.Errorf("%s %d %s", web.health, web.starts, web.state)
		}
		if n := strings.Count(said.String(), "unhealthy: exit 1"); n != 1 {
			t.Errorf("said %d times:\n%s", n, said.String())
		}
		p.stopServices()
		p.want(t, "0s start web", "1h0m0s terminated web")
	})
}

func TestProbe(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.RequestURI() {
		case "/ok?a=b":
			if r.Method != "GET" || r.Header.Get("User-Agent") != "slipway" {
				w.WriteHeader(http.StatusBadRequest)
			}
		case "/moved":
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		case "/hangs":
			<-r.Context().Done()
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	go func() {
		for {
			conn, err := other.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(conn, "SSH-2.0-OpenSSH\r\n")
			conn.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for check, want := range map[string]string{
		server.URL + "/ok?a=b":                     "",
		"http://localhost:" + port + "/moved":      "",
		server.URL + "/":                           "status 503",
		server.URL + "/hangs":                      "no answer within 500ms",
		"http://" + other.Addr().String() + "/":    `the answer is not HTTP: "SSH-2.0-OpenSSH\r\n"`,
		"tcp://localhost:" + port:                  "",
		"tcp://" + closed.Addr().String():          "dial tcp " + closed.Addr().String() + ": connect: connection refused",
		"http://" + closed.Addr().String() + "/ok": "dial tcp " + closed.Addr().String() + ": connect: connection refused",
	} {
		p, err := policy.Parse(contract.Services, map[string]string{"build.slipway.health": check, "build.slipway.health-timeout": "500ms"})
		if err != nil {
			t.Fatal(err)
		}
		s := newService("web")
		s.policy = p
		got := ""
		if err := s.check(t.Context(), nil, &task{pid: os.Getpid()}); err != nil {
			got = err.Error()
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", check, diff)
		}
	}
}
