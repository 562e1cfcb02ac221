package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestReadResponse(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	chunks := strings.Repeat("1\r\nx\r\n", maxBody)
	for _, c := range []struct {
		name, text string
		body, err  string
	}{
		{"length", ok + "Content-Length: 3\r\n\r\nabcd", "abc", ""},
		{"no value", ok + "content-length: 0\r\n\r\n", "", ""},
		{"until the end", "HTTP/1.0 200 OK\r\n\r\nabc", "abc", ""},
		{"chunks", ok + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n", "abc0123456789", ""},
		{"many chunks", ok + "Transfer-Encoding: chunked\r\n\r\n" + chunks + "0\r\n\r\n", strings.Repeat("x", maxBody), ""},
		{"no reason", "HTTP/1.1 200\r\nContent-Length: 1\r\n\r\na", "a", ""},

		{"empty", "", "", "unexpected EOF"},
		{"other protocol", "SSH-2.0-x\r\n\r\n", "", "not a response of HTTP/1"},
		{"no status", "HTTP/1.1 OK\r\n\r\n", "", "not a response of HTTP/1"},
		{"half a header", ok + "Content-Le", "", "malformed MIME header"},
		{"not a header", ok + "x\r\n\r\n", "", "malformed MIME header"},
		{"short", ok + "Content-Length: 3\r\n\r\nab", "", "unexpected EOF"},
		{"negative", ok + "Content-Length: -1\r\n\r\nab", "", "invalid length"},
		{"too long", ok + "Content-Length: 9999999\r\n\r\n", "", "longer than 64 KiB"},
		{"too long without length", ok + "\r\n" + strings.Repeat("x", maxBody+1), "", "longer than 64 KiB"},
		{"too long in chunks", ok + "Transfer-Encoding: chunked\r\n\r\n" + chunks + "1\r\nx\r\n0\r\n\r\n", "", "longer than 64 KiB"},
		{"too long a chunk", ok + "Transfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\n", "", "longer than 64 KiB"},
		{"short chunk", ok + "Transfer-Encoding: chunked\r\n\r\n3\r\nab", "", "unexpected EOF"},
		{"no last chunk", ok + "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n", "", "unexpected EOF"},
		{"chunk without length", ok + "Transfer-Encoding: chunked\r\n\r\nx\r\n", "", "invalid length of a chunk"},
		{"chunk too short", ok + "Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n", "", "longer than it says"},
		{"compressed", ok + "Transfer-Encoding: gzip\r\n\r\nx", "", "unknown transfer encoding"},
		{"endless header", ok + strings.Repeat("X: y\r\n", maxResponse), "", "unexpected EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, body, err := readResponse(strings.NewReader(c.text))
			switch {
			case c.err != "":
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("body %.20q, error %v, want one with %q", body, err, c.err)
				}
			case err != nil || status != statusOK || string(body) != c.body:
				t.Errorf("%d, %.20q, %v", status, body, err)
			}
		})
	}
}

// FuzzReadResponse checks that no response crashes the client, or has a longer body
// than it accepts.
func FuzzReadResponse(f *testing.F) {
	f.Add("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")
	f.Add("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\n\r\n")
	f.Add("HTTP/1.0 404 Not Found\r\n\r\nabc")
	f.Fuzz(func(t *testing.T, text string) {
		if _, body, err := readResponse(strings.NewReader(text)); err == nil && len(body) > maxBody {
			t.Errorf("a body of %d bytes", len(body))
		}
	})
}

// A server that sends long values in chunks, as net/http does.
func TestClientWithServer(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", maxBody/16)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			w.Write([]byte("secret"))
			return
		}
		if r.Header.Get("X-Aws-Ec2-Metadata-Token") != "secret" || r.Host == "" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		for part := long; part != ""; part = part[min(len(part), 1000):] {
			w.Write([]byte(part[:min(len(part), 1000)]))
			w.(http.Flusher).Flush()
		}
	}))
	defer server.Close()
	c := newClient(server.URL)
	if _, _, err := c.get(t.Context(), "x"); err == nil || !strings.Contains(err.Error(), "answers 401") {
		t.Errorf("without a token: %v", err)
	}
	if err := c.authorize(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, ok, err := c.get(t.Context(), "x"); got != long || !ok || err != nil {
		t.Errorf("%d bytes, %v, %v", len(got), ok, err)
	}
}

// A token cannot add headers to the requests that contain it.
func TestInvalidToken(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("a\r\nHost: b")) }))
	defer server.Close()
	if err := newClient(server.URL).authorize(t.Context()); err == nil || !strings.Contains(err.Error(), "invalid token") {
		t.Errorf("error %v", err)
	}
}

// A service that accepts connections and says nothing does not delay a login for
// longer than its deadline.
func TestSilentService(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := newClient("http://" + listener.Addr().String()).authorize(ctx); err == nil {
		t.Error("no error")
	}
	if d := time.Since(start); d > 4*time.Second {
		t.Errorf("waited %v", d)
	}
}
