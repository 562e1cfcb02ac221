package run

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/slipway-build/slipway/internal/vm"
)

// A Condition is what a user waits for: that a service has started, that a port
// answers, or that the console shows a text.
type Condition struct {
	text string // as the user wrote it

	console *regexp.Regexp // on the console
	port    int            // of the guest
}

// ParseCondition parses service=NAME, port=NUMBER or text=REGEXP.
func ParseCondition(text string) (Condition, error) {
	kind, value, _ := strings.Cut(text, "=")
	c := Condition{text: text}
	var err error
	switch {
	case value == "":
		err = errors.New("must be service=NAME, port=NUMBER or text=REGEXP")
	case kind == "service":
		c.console = regexp.MustCompile(`(?m)service ` + regexp.QuoteMeta(value) + `: started`)
	case kind == "text":
		c.console, err = regexp.Compile(value)
	case kind == "port":
		if c.port, err = strconv.Atoi(value); err != nil || c.port < 1 || c.port > 65535 {
			err = errors.New("must be a TCP port of the machine")
		}
	default:
		err = errors.New("must be service=NAME, port=NUMBER or text=REGEXP")
	}
	if err != nil {
		return c, fmt.Errorf("%q: %w", text, err)
	}
	return c, nil
}

// Check reports why a machine can never meet the condition.
func (c Condition) Check(config vm.Config) error {
	if c.port == 0 || c.port == sshPort {
		return nil
	}
	for _, f := range config.Forwards {
		if f.GuestPort == c.port && !f.UDP {
			return nil
		}
	}
	return fmt.Errorf("port %d is not published: add --publish %d:%d", c.port, 8000+c.port%1000, c.port)
}

const sshPort = 22

// address returns where the host forwards to the port of the condition.
func (c Condition) address(r Record) string {
	for _, f := range r.Config.Forwards {
		if f.GuestPort == c.port && !f.UDP {
			return net.JoinHostPort(f.Address, strconv.Itoa(f.Port))
		}
	}
	return r.SSHAddress
}

// met reports whether a machine meets the condition.
func (c Condition) met(ctx context.Context, r Record, console []byte) bool {
	if c.console != nil {
		return c.console.Match(console)
	}
	return answers(ctx, c.address(r))
}

// answers reports whether a server at an address says something: by itself, or
// to a request. A connection alone does not show that, because QEMU accepts it
// before the guest does.
func answers(ctx context.Context, address string) bool {
	return vm.Answer(ctx, address, "GET / HTTP/1.0\r\n\r\n", 1) != ""
}

// Wait waits until a machine meets all conditions. It returns an error if the
// machine ends or ctx is done before.
func (s Store) Wait(ctx context.Context, name string, conditions []Condition) error {
	for len(conditions) > 0 {
		r, err := s.Find(name)
		if err != nil {
			return err
		}
		console, err := s.console(r)
		if err != nil {
			return err
		}
		switch {
		case conditions[0].met(ctx, r, console):
			conditions = conditions[1:]
			continue
		case r.State == Ended:
			return fmt.Errorf("machine %s ended before %s: %s", name, conditions[0].text, cmp.Or(r.Error, "it powered off"))
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("machine %s: no %s: %w", name, conditions[0].text, context.Cause(ctx))
		}
	}
	return nil
}

// WaitSSH waits until a machine accepts a login.
func (s Store) WaitSSH(ctx context.Context, name string) (Record, error) {
	for {
		r, err := s.Find(name)
		if err != nil {
			return r, err
		}
		switch {
		case r.State == Ended:
			return r, fmt.Errorf("machine %s has ended: %s", name, cmp.Or(r.Error, "it powered off"))
		case r.State == Running && r.SSHAddress == "":
			return r, fmt.Errorf("machine %s has no network", name)
		case r.State == Running && vm.Greets(ctx, r.SSHAddress):
			client, err := vm.Login(ctx, r.SSHAddress, r.Key)
			if err == nil {
				return r, client.Close()
			}
			if errors.Is(err, vm.ErrRejected) {
				return r, fmt.Errorf("%w: does the machine run the packages dhcpcd and metadata, and bind the keys into sshd?", err)
			}
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return r, fmt.Errorf("machine %s: no ssh: %w", name, context.Cause(ctx))
		}
	}
}
