package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// maxBody is the largest value that the service may send, in bytes.
const maxBody = 64 << 10

// A client asks version 2 of the EC2 instance metadata service.
type client struct {
	endpoint, token string
	http            *http.Client
}

func newClient(endpoint string) *client {
	return &client{endpoint: endpoint, http: &http.Client{
		// No proxy: the service is on the link.
		Transport: &http.Transport{DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext},
		Timeout:   5 * time.Second,
		// A redirect would send the token elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// authorize gets a token, which lives as long as this program.
func (c *client) authorize(ctx context.Context) error {
	header := http.Header{"X-Aws-Ec2-Metadata-Token-Ttl-Seconds": {"30"}}
	status, token, err := c.send(ctx, http.MethodPut, "/latest/api/token", header)
	if err == nil && (status != http.StatusOK || token == "") {
		err = fmt.Errorf("the metadata service answers %d to the request for a token", status)
	}
	c.token = token
	return err
}

// get returns the value at a path below meta-data, and false if there is none.
func (c *client) get(ctx context.Context, path string) (string, bool, error) {
	status, body, err := c.send(ctx, http.MethodGet, "/latest/meta-data/"+path, http.Header{"X-Aws-Ec2-Metadata-Token": {c.token}})
	switch {
	case err != nil:
		return "", false, err
	case status == http.StatusNotFound:
		return "", false, nil
	case status != http.StatusOK:
		return "", false, fmt.Errorf("%s: the metadata service answers %d", path, status)
	}
	return body, true, nil
}

// must is get for a value of one line that exists.
func (c *client) must(ctx context.Context, path string) (string, error) {
	value, ok, err := c.get(ctx, path)
	if err == nil && !ok {
		err = fmt.Errorf("%s: the metadata service does not have it", path)
	}
	return strings.TrimSpace(value), err
}

func (c *client) send(ctx context.Context, method, path string, header http.Header) (int, string, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.endpoint+path, nil)
	if err != nil {
		return 0, "", err
	}
	request.Header = header
	response, err := c.http.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody+1))
	if err == nil && len(body) > maxBody {
		err = errors.New("longer than 64 KiB")
	}
	if err != nil {
		return 0, "", fmt.Errorf("%s: %w", path, err)
	}
	return response.StatusCode, string(body), nil
}
