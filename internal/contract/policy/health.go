package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Health says how the init finds out whether a service works. Exactly one of
// Command, URL and Address is set.
type Health struct {
	Command []string // to run in the container; it must exit with status 0
	URL     string   // to get; the status must be 200 to 399
	Address string   // host and port that must accept a connection

	Interval    time.Duration // between two checks
	Timeout     time.Duration // of a check
	StartPeriod time.Duration // after a start, in which failures do not count until a check has succeeded
	Failures    int           // in a row that make the service unhealthy
}

// Boot says that a service is part of a healthy machine.
type Boot struct {
	Timeout time.Duration // from the start of the services until the machine reboots
	Reboots int           // in a row, at most
}

// The defaults of [Health] and [Boot].
const (
	HealthInterval    = 30 * time.Second
	HealthTimeout     = 10 * time.Second
	HealthStartPeriod = time.Minute
	HealthFailures    = 3
	BootReboots       = 3
)

// health returns p.Health, with defaults if it was not set.
func (p *Policy) health() *Health {
	if p.Health == nil {
		p.Health = &Health{Interval: HealthInterval, Timeout: HealthTimeout, StartPeriod: HealthStartPeriod, Failures: HealthFailures}
	}
	return p.Health
}

// boot returns p.Boot, with defaults if it was not set.
func (p *Policy) boot() *Boot {
	if p.Boot == nil {
		p.Boot = &Boot{Reboots: BootReboots}
	}
	return p.Boot
}

var errHealth = errors.New("must be exec PROGRAM ARGUMENT…, exec [\"PROGRAM\", \"ARGUMENT\", …], tcp://HOST:PORT or http://HOST:PORT/PATH, where HOST is localhost or an IP address")

// setCheck parses the value of build.slipway.health.
func (p *Policy) setCheck(value string) error {
	h := p.health()
	if rest, ok := strings.CutPrefix(value, "exec"); ok {
		return h.setCommand(rest)
	}
	u, err := url.Parse(value)
	if err != nil || u.User != nil || u.Fragment != "" || u.Opaque != "" || !localHost(u.Hostname()) {
		return errHealth
	}
	port := u.Port()
	if n, err := strconv.ParseUint(port, 10, 16); port != "" && (err != nil || n == 0) {
		return errHealth
	}
	switch {
	case u.Scheme == "http":
		h.URL = u.String()
	case u.Scheme == "tcp" && port != "" && u.Path == "" && u.RawQuery == "":
		h.Address = u.Host
	default:
		return errHealth
	}
	return nil
}

// setCommand parses words, or a JSON array of words.
func (h *Health) setCommand(text string) error {
	words := strings.Fields(text)
	if len(words) == 0 || text == strings.TrimLeft(text, " \t\n") {
		return errHealth
	}
	if strings.HasPrefix(words[0], "[") {
		words = nil
		if err := json.Unmarshal([]byte(text), &words); err != nil || len(words) == 0 || words[0] == "" {
			return errHealth
		}
	}
	h.Command = words
	return nil
}

// localHost reports whether a host is localhost or an IP address. The init does
// not look up names.
func localHost(host string) bool {
	_, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil
}

// duration parses a positive duration.
func duration(to *time.Duration, value string) error {
	d, err := time.ParseDuration(value)
	if err != nil || d <= 0 {
		return errors.New("must be a duration, for example 30s or 5m")
	}
	*to = d
	return nil
}

// count parses a number of at least low.
func count(to *int, value string, low int) error {
	const high = 1000
	n, err := strconv.Atoi(value)
	if err != nil || n < low || n > high {
		return fmt.Errorf("must be a number from %d to %d", low, high)
	}
	*to = n
	return nil
}
