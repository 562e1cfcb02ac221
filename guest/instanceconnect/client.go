package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// maxBody is the largest value that the service may send, in bytes. maxResponse
// also allows for headers and for the lengths of many small chunks.
const (
	maxBody     = 64 << 10
	maxResponse = 8 * maxBody
)

const (
	statusOK       = 200
	statusNotFound = 404
)

// A client asks version 2 of the EC2 instance metadata service. It speaks plain
// HTTP/1.1 itself: net/http and the TLS in it would make the program a third
// larger. It uses no proxy, because the service is on the link, and follows no
// redirect, which would send the token elsewhere.
type client struct {
	endpoint, token string
}

func newClient(endpoint string) *client { return &client{endpoint: endpoint} }

// authorize gets a token, which lives as long as this program.
func (c *client) authorize(ctx context.Context) error {
	status, token, err := c.send(ctx, "PUT", "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 30")
	switch {
	case err != nil:
		return err
	case status != statusOK || token == "":
		return fmt.Errorf("the metadata service answers %d to the request for a token", status)
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		// In a request it could be more than a token.
		return fmt.Errorf("the metadata service sends an invalid token %.64q", token)
	}
	c.token = token
	return nil
}

// get returns the value at a path below meta-data, and false if there is none.
func (c *client) get(ctx context.Context, path string) (string, bool, error) {
	status, body, err := c.send(ctx, "GET", "/latest/meta-data/"+path, "X-aws-ec2-metadata-token: "+c.token)
	switch {
	case err != nil:
		return "", false, err
	case status == statusNotFound:
		return "", false, nil
	case status != statusOK:
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

// send sends a request with one header on a connection of its own, and returns
// status and body of the response.
func (c *client) send(ctx context.Context, method, path, header string) (int, string, error) {
	endpoint, err := url.Parse(c.endpoint)
	if err != nil {
		return 0, "", err
	}
	port := endpoint.Port()
	if port == "" {
		port = "80"
	}
	conn, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "tcp", net.JoinHostPort(endpoint.Hostname(), port))
	if err != nil {
		return 0, "", err
	}
	defer conn.Close()
	deadline := time.Now().Add(5 * time.Second)
	if end, ok := ctx.Deadline(); ok && end.Before(deadline) {
		deadline = end
	}
	conn.SetDeadline(deadline)
	if _, err := fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: slipway\r\nConnection: close\r\n%s\r\n\r\n", method, path, endpoint.Host, header); err != nil {
		return 0, "", err
	}
	status, body, err := readResponse(conn)
	if err != nil {
		return 0, "", fmt.Errorf("%s: %w", path, err)
	}
	return status, string(body), nil
}

var errTooLong = fmt.Errorf("longer than %d KiB", maxBody>>10)

// readResponse reads a response as RFC 9112 describes, the last one of its
// connection.
func readResponse(conn io.Reader) (int, []byte, error) {
	r := textproto.NewReader(bufio.NewReader(io.LimitReader(conn, maxResponse)))
	line, err := r.ReadLine()
	if err != nil {
		return 0, nil, cut(err)
	}
	protocol, rest, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(rest, " ")
	status, err := strconv.ParseUint(code, 10, 16)
	if err != nil || !strings.HasPrefix(protocol, "HTTP/1.") {
		return 0, nil, fmt.Errorf("not a response of HTTP/1: %.64q", line)
	}
	header, err := r.ReadMIMEHeader()
	if err != nil {
		return 0, nil, cut(err)
	}
	body, err := readBody(r, header)
	return int(status), body, cut(err)
}

func readBody(r *textproto.Reader, header textproto.MIMEHeader) ([]byte, error) {
	if encoding := header.Get("Transfer-Encoding"); encoding != "" {
		if !strings.EqualFold(encoding, "chunked") {
			return nil, fmt.Errorf("unknown transfer encoding %.64q", encoding)
		}
		return readChunks(r)
	}
	text := header.Get("Content-Length")
	if text == "" {
		body, err := io.ReadAll(io.LimitReader(r.R, maxBody+1))
		if err == nil && len(body) > maxBody {
			err = errTooLong
		}
		return body, err
	}
	length, err := strconv.ParseUint(text, 10, 63)
	switch {
	case err != nil:
		return nil, fmt.Errorf("invalid length %.64q", text)
	case length > maxBody:
		return nil, errTooLong
	}
	body := make([]byte, length)
	_, err = io.ReadFull(r.R, body)
	return body, err
}

// readChunks reads a body in the chunked transfer coding.
func readChunks(r *textproto.Reader) ([]byte, error) {
	var body []byte
	for {
		line, err := r.ReadLine()
		if err != nil {
			return nil, err
		}
		text, _, _ := strings.Cut(line, ";")
		length, err := strconv.ParseUint(strings.TrimSpace(text), 16, 63)
		switch {
		case err != nil:
			return nil, fmt.Errorf("invalid length of a chunk %.64q", line)
		case length == 0:
			return body, nil // trailers do not matter
		case length > uint64(maxBody-len(body)):
			return nil, errTooLong
		}
		chunk := make([]byte, length+2)
		if _, err := io.ReadFull(r.R, chunk); err != nil {
			return nil, err
		}
		if string(chunk[length:]) != "\r\n" {
			return nil, errors.New("a chunk is longer than it says")
		}
		body = append(body, chunk[:length]...)
	}
}

// cut returns the error for a response that ends too early.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
