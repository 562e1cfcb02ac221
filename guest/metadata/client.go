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

// maxBody bounds what a metadata service may send for one value; EC2's user data has at most 16 KiB.
const maxBody = 1 << 20

// dialTimeout is for one attempt to connect, on the link or close to it.
const dialTimeout = 2 * time.Second

// client sends requests to a metadata service that may not be reachable yet.
type client struct {
	http     *http.Client
	pause    time.Duration // before the second attempt; doubled for each further one
	maxPause time.Duration
	quiet    bool // about attempts that failed: several services are asked, and at most one is there
}

func newClient() *client {
	return &client{
		http: &http.Client{
			// No proxy, whatever the environment says: the service is on the link.
			Transport: &http.Transport{DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext},
			Timeout:   5 * time.Second,
			// A redirect would carry the token elsewhere.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		pause:    100 * time.Millisecond,
		maxPause: 2 * time.Second,
	}
}

// send sends a request without a body and gives status and body of the answer. What may pass is tried again until ctx ends: no route, no
// answer, 429 and 5xx.
func (c *client) send(ctx context.Context, method, url string, header http.Header) (int, []byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return 0, nil, err
	}
	request.Header = header
	start, pause := time.Now(), c.pause
	var last error
	for {
		status, body, err := c.attempt(request)
		switch {
		case errors.Is(err, errTooLong):
			return 0, nil, err
		case err == nil && status != http.StatusTooManyRequests && status < 500:
			return status, body, nil
		case err == nil:
			err = fmt.Errorf("%s %s: the service answers %d %s", method, url, status, http.StatusText(status))
		}
		if last == nil && !c.quiet {
			log.Printf("%v; trying again", err)
		}
		// Once ctx ends, attempts fail for that alone; the error before tells more.
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return 0, nil, fmt.Errorf("gave up after %s: %w%s", time.Since(start).Round(time.Second/10), last, advice(last))
		case <-time.After(pause):
			pause = min(2*pause, c.maxPause)
		}
	}
}

// get gives the value at a URL, and false if the service has none there.
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

// must is get for a value that every instance has: a service without it is another one.
func (c *client) must(ctx context.Context, url string, header http.Header) ([]byte, error) {
	body, ok, err := c.get(ctx, url, header)
	if err == nil && !ok {
		err = fmt.Errorf("GET %s: the service answers 404 Not Found, so it is another one", url)
	}
	return body, err
}

// privileged gives a client whose requests come from a port below 1024, which only root can use.
func (c *client) privileged() *client {
	p := *c
	p.http = &http.Client{
		Transport: &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
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
		}},
		Timeout:       c.http.Timeout,
		CheckRedirect: c.http.CheckRedirect,
	}
	return &p
}

var errTooLong = fmt.Errorf("the answer is longer than %d bytes", maxBody)

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
	return response.StatusCode, body, nil
}

func advice(err error) string {
	if errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH) {
		return " (the network is not up: has a DHCP client run before, and did it get a lease?)"
	}
	return ""
}
