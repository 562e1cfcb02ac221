package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"syscall"
	"time"
)

// maxBody is the largest value that a metadata service may send, in bytes. User
// data of EC2 has at most 16 KiB.
const maxBody = 1 << 20

// A budget is how many bytes a source may still give. It bounds the memory and
// the files that all its values together need.
type budget struct{ left int }

// maxSource is the budget of every source, in bytes.
const maxSource = 8 << 20

func newBudget() *budget { return &budget{maxSource} }

var errTooMuch = fmt.Errorf("all values together are longer than %d bytes", maxSource)

// spend takes the length of a value from the budget. Short values, too, need
// memory and time, so each counts as 256 bytes at least.
func (b *budget) spend(n int) error {
	if b.left -= max(n, 256); b.left < 0 {
		return errTooMuch
	}
	return nil
}

// dialTimeout is for one attempt to connect. The service is on the link or
// close to it.
const dialTimeout = 2 * time.Second

// A client sends requests to a metadata service that may not be reachable yet.
type client struct {
	http     *http.Client
	delay    time.Duration // before the second attempt; doubles for each further one
	maxDelay time.Duration
	budget   *budget
	quiet    bool // do not log failed attempts, because at most one of several services exists
}

func newClient() *client {
	return &client{
		http: &http.Client{
			// No proxy, regardless of the environment: the service is on the
			// link.
			Transport: &http.Transport{DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext},
			Timeout:   5 * time.Second,
			// A redirect would send the token elsewhere.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		budget:   newBudget(),
		delay:    100 * time.Millisecond,
		maxDelay: 2 * time.Second,
	}
}

// send sends a request without a body and returns status and body of the
// response. It repeats the request until ctx ends if the service is unreachable
// or answers 429 or 5xx.
func (c *client) send(ctx context.Context, method, url string, header http.Header) (int, []byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return 0, nil, err
	}
	request.Header = header
	start, delay := time.Now(), c.delay
	var last error
	for {
		status, body, err := c.attempt(request)
		switch {
		case errors.Is(err, errTooLong) || errors.Is(err, errTooMuch):
			return 0, nil, err
		case err == nil && status != http.StatusTooManyRequests && status < 500:
			return status, body, nil
		case err == nil:
			err = fmt.Errorf("%s %s: the service answers %d %s", method, url, status, http.StatusText(status))
		}
		if last == nil && !c.quiet {
			log.Printf("%v; trying again", err)
		}
		// Once ctx ends, attempts fail only for that reason; the error before
		// says more.
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return 0, nil, fmt.Errorf("gave up after %s: %w%s", time.Since(start).Round(time.Second/10), last, advice(last))
		case <-time.After(delay):
			delay = min(2*delay, c.maxDelay)
		}
	}
}

// get returns the value at a URL, and false if the service does not have it.
func (c *client) get(ctx context.Context, url string, header http.Header) ([]byte, bool, error) {
	status, body, err := c.send(ctx, http.MethodGet, url, header)
	switch {
	case err != nil:
		return nil, false, err
	case status == http.StatusOK:
		return body, true, nil
	case status == http.StatusNotFound:
		return nil, false, nil
	}
	return nil, false, fmt.Errorf("GET %s: the service answers %d %s", url, status, http.StatusText(status))
}

// must is get for a value that every instance has. Without it, the service is
// that of another cloud.
func (c *client) must(ctx context.Context, url string, header http.Header) ([]byte, error) {
	body, ok, err := c.get(ctx, url, header)
	if err == nil && !ok {
		err = fmt.Errorf("GET %s: the service answers 404 Not Found: not the service of this provider", url)
	}
	return body, err
}

// privileged returns a client whose requests come from a port below 1024, which
// only root can use.
func (c *client) privileged() *client {
	return c.withDial(func(ctx context.Context, network, address string) (net.Conn, error) {
		var last error
		for port := 1023; port > 512; port-- {
			dialer := net.Dialer{Timeout: dialTimeout, LocalAddr: &net.TCPAddr{Port: port}}
			conn, err := dialer.DialContext(ctx, network, address)
			if !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, syscall.EADDRNOTAVAIL) {
				return conn, err
			}
			last = err
		}
		return nil, last
	})
}

// withFallback returns a client that connects to another address if it cannot
// connect to that of the request.
func (c *client) withFallback(other string) *client {
	return c.withDial(func(ctx context.Context, network, address string) (net.Conn, error) {
		dialer := net.Dialer{Timeout: dialTimeout}
		conn, err := dialer.DialContext(ctx, network, address)
		if err == nil {
			return conn, nil
		}
		conn, otherErr := dialer.DialContext(ctx, network, other)
		if otherErr != nil {
			return nil, fmt.Errorf("%w; %w", err, otherErr)
		}
		return conn, nil
	})
}

// withDial returns a client that connects with a function.
func (c *client) withDial(dial func(ctx context.Context, network, address string) (net.Conn, error)) *client {
	p := *c
	p.http = &http.Client{
		Transport:     &http.Transport{DialContext: dial},
		Timeout:       c.http.Timeout,
		CheckRedirect: c.http.CheckRedirect,
	}
	return &p
}

var errTooLong = fmt.Errorf("the value is longer than %d bytes", maxBody)

func (c *client) attempt(request *http.Request) (int, []byte, error) {
	response, err := c.http.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody+1))
	if err != nil {
		return 0, nil, fmt.Errorf("%s %s: %w", request.Method, request.URL, err)
	}
	if len(body) > maxBody {
		return 0, nil, fmt.Errorf("%s %s: %w", request.Method, request.URL, errTooLong)
	}
	if err := c.budget.spend(len(body)); err != nil {
		return 0, nil, fmt.Errorf("%s %s: %w", request.Method, request.URL, err)
	}
	return response.StatusCode, body, nil
}

func advice(err error) string {
	if errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH) {
		return " (the network is not up: does a DHCP client run before this container, and did it get a lease?)"
	}
	return ""
}
