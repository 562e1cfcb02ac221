package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipway-build/slipway/internal/kernel/mountinfo"
)

// The machine reboots if a service is not healthy in time, as often as the
// annotation says, and is healthy when all required services are.
func TestBootHealth(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state", "reboots")
	for i, c := range []struct {
		reboots string
		works   time.Duration // when the checks begin to succeed; 0: never
		place   error         // why there is no counter
		asked   bool          // whether a reboot is requested
		said    []string
		left    string // the content of the counter
	}{
		{"2", 0, nil, true, []string{"machine is not healthy: service web, which must be within 1m0s, is starting: exit 1", "reboot 1 of at most 2"}, "1\n"},
		{"2", 0, nil, true, []string{"reboot 2 of at most 2"}, "2\n"},
		{"2", 0, nil, false, []string{"not rebooting: the machine was not healthy after 2 reboots"}, "2\n"},
		{"2", 10 * time.Minute, nil, false, []string{"not rebooting", "machine is healthy"}, ""},
		{"2", 30 * time.Second, nil, false, []string{"machine is healthy"}, ""},
		{"0", 0, nil, false, []string{"not rebooting: the annotation build.slipway.boot-reboots is 0"}, ""},
		{"2", 0, errors.New("nothing survives"), false, []string{"not rebooting: nothing survives"}, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			var said bytes.Buffer
			p := newPlay(&said)
			p.requests = make(chan powerState, 1)
			p.check = func(_ context.Context, at time.Duration) error {
				if c.works == 0 || at < c.works {
					return errors.New("exit 1")
				}
				return nil
			}
			polite := act{obeys: syscall.SIGTERM}
			p.add("web", checked(t, "boot-health", "1m", "boot-reboots", c.reboots, "health-start-period", "1h"), nil, polite)
			p.add("other", checked(t), nil, polite)
			ctx, stop := context.WithCancel(t.Context())
			go p.watchBoot(ctx, func() (*counter, error) { return &counter{path: file}, c.place })
			time.Sleep(20 * time.Minute)
			if asked := len(p.requests) == 1; asked != c.asked {
				t.Errorf("%d: reboot requested: %v", i, asked)
			}
			for _, want := range c.said {
				if !strings.Contains(said.String(), want) {
					t.Errorf("%d: %q is not said:\n%s", i, want, said.String())
				}
			}
			if text, _ := os.ReadFile(file); string(text) != c.left {
				t.Errorf("%d: the counter is %q, want %q", i, text, c.left)
			}
			if n := strings.Count(said.String(), "machine is"); n != 1 && i != 3 {
				t.Errorf("%d: said %d times:\n%s", i, n, said.String())
			}
			stop()
			p.stopServices()
		})
	}
}

func TestWaitHealthy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(os.Stderr)
		p.check = func(_ context.Context, at time.Duration) error {
			if at < time.Minute {
				return errors.New("exit 1")
			}
			return nil
		}
		wait := func(ctx context.Context, words ...string) string {
			if _, err := p.control(ctx, append([]string{"wait-healthy"}, words...)); err != nil {
				return err.Error()
			}
			return ""
		}
		p.add("web", checked(t), nil, act{obeys: syscall.SIGTERM})
		if got, want := wait(t.Context()), "no service is part of a healthy machine: name services, or add the annotation build.slipway.boot-health to some"; got != want {
			t.Error(got)
		}
		p.add("required", checked(t, "boot-health", "1h"), nil, act{obeys: syscall.SIGTERM})
		p.add("broken", checked(t), nil, act{err: errors.New("no such file")})
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		for _, c := range []struct {
			ctx   context.Context
			words string
			want  string
			at    time.Duration
		}{
			{t.Context(), "--timeout 5s", "service required is starting: exit 1", 5 * time.Second},
			{gone, "web", "service web is starting: exit 1", 5 * time.Second},
			{t.Context(), "--timeout soon", `--timeout "soon": must be a duration, for example 5m`, 5 * time.Second},
			{t.Context(), "wbe", "no service wbe (services: web, required, broken)", 5 * time.Second},
			{t.Context(), "broken", "service broken is failed: failed: no such file", 5 * time.Second},
			{t.Context(), "web required", "", time.Minute},
			{t.Context(), "", "", time.Minute},
			{t.Context(), "web broken", "service broken is failed: failed: no such file", time.Minute},
		} {
			if got := wait(c.ctx, strings.Fields(c.words)...); got != c.want || time.Since(p.begin) != c.at {
				t.Errorf("wait-healthy %s: %q at %v", c.words, got, time.Since(p.begin))
			}
		}
		p.stopServices()
	})
}

func TestCounter(t *testing.T) {
	for _, efi := range []bool{false, true} {
		c := counter{path: filepath.Join(t.TempDir(), "counter"), efi: efi}
		if n, err := c.read(); n != 0 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		text := "7\n"
		if efi {
			text = "\x07\x00\x00\x00" + text
		} else if err := c.write(7); err != nil {
			t.Fatal(err)
		}
		if efi { // the kernel, not a file, accepts changes
			if err := os.WriteFile(c.path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(c.path); err != nil || string(got) != text {
			t.Errorf("%q, %v", got, err)
		}
		if n, err := c.read(); n != 7 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		for _, bad := range []string{"", "abcd-1", "abcd99999999999"} {
			if err := os.WriteFile(c.path, []byte(bad), 0o644); err != nil {
				t.Fatal(err)
			}
			if n, err := c.read(); err == nil {
				t.Errorf("%q: %d", bad, n)
			}
		}
	}
}

func TestOnDisk(t *testing.T) {
	mounts := []mountinfo.Mount{
		{Path: "/", Type: "rootfs", Source: "rootfs"},
		{Path: "/var", Type: "tmpfs", Source: "tmpfs"},
		{Path: "/var/lib/data", Type: "ext4", Source: "/dev/vda1"},
		{Path: "/srv", Type: "ext4", Source: "/dev/vdb"},
		{Path: "/srv", Type: "tmpfs", Source: "tmpfs"},
	}
	for path, want := range map[string]bool{"/var/lib/slipway": false, "/var/lib/data": true, "/var/lib/data/x": true, "/var/lib/database": false, "/srv/x": false, "/etc": false} {
		if got := onDisk(mounts, path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}
