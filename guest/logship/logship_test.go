package main

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	collector "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	"google.golang.org/protobuf/proto"

	"github.com/slipway-build/slipway/guest/memlog"
	"github.com/slipway-build/slipway/internal/testutil/selfsigned"
)

var moment = time.Date(2029, 2, 3, 4, 5, 6, 123456789, time.FixedZone("", 3600))

func entry(source, msg string) memlog.Entry {
	return memlog.Entry{Time: moment, Source: source, Msg: msg}
}

func TestFormat(t *testing.T) {
	for _, c := range []struct {
		e    memlog.Entry
		host string
		want string
	}{
		{entry("web", "GET / \"200\""), "h", `<30>1 2029-02-03T03:05:06.123456Z h web - - [meta sequenceId="7"] GET / "200"`},
		{entry("onboot.000-a b", "x\ny"), "", "<30>1 2029-02-03T03:05:06.123456Z - onboot.000-a_b - - [meta sequenceId=\"7\"] x\ny"},
		{entry(strings.Repeat("ä", 60), "\xff"), "h", "<30>1 2029-02-03T03:05:06.123456Z h " + strings.Repeat("_", 48) + " - - [meta sequenceId=\"7\"] \uFFFD"},
	} {
		if got := string(format(c.e, c.host, 7)); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

// certificate writes a certificate for 127.0.0.1 with its key, and returns the
// paths.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	certPEM, keyPEM := selfsigned.PEM(t)
	if err := errors.Join(os.WriteFile(cert, certPEM, 0o600), os.WriteFile(key, keyPEM, 0o600)); err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// readMessages reads messages with octet counting from a connection.
func readMessages(conn net.Conn, messages chan<- string) {
	defer conn.Close()
	for in := bufio.NewReader(conn); ; {
		count, err := in.ReadString(' ')
		if err != nil {
			return
		}
		n, err := strconv.Atoi(strings.TrimSpace(count))
		if err != nil {
			messages <- "invalid count " + count
			return
		}
		message := make([]byte, n)
		if _, err := io.ReadFull(in, message); err != nil {
			return
		}
		messages <- string(message)
	}
}

func next(t *testing.T, messages <-chan string) string {
	t.Helper()
	select {
	case m := <-messages:
		return m
	case <-time.After(10 * time.Second):
		t.Fatal("no message")
		return ""
	}
}

// TestSyslogTLS sends to a server that requires a certificate, which restarts and
// is not there for a while.
func TestSyslogTLS(t *testing.T) {
	cert, key := certificate(t)
	files := tlsFiles{cert, cert, key}
	config, err := files.load()
	if err != nil {
		t.Fatal(err)
	}
	server := &tls.Config{Certificates: config.Certificates, ClientCAs: config.RootCAs, ClientAuth: tls.RequireAndVerifyClientCert}
	messages := make(chan string, 100)
	listen := func(address string) (net.Listener, chan net.Conn) {
		t.Helper()
		listener, err := tls.Listen("tcp", address, server)
		if err != nil {
			t.Fatal(err)
		}
		conns := make(chan net.Conn, 10)
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				conns <- conn
				go readMessages(conn, messages)
			}
		}()
		return listener, conns
	}
	listener, conns := listen("127.0.0.1:0")
	address := listener.Addr().String()
	to, err := newSink(t.Context(), "syslog+tls://"+address, config)
	if err != nil {
		t.Fatal(err)
	}
	s := newShipper("test", to, 1<<20)
	s.firstDelay, s.maxDelay = 10*time.Millisecond, 50*time.Millisecond
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { defer close(done); s.run(ctx) }()
	s.queue.add(entry("web", "one"))
	s.queue.add(entry("web", "two"))
	want := regexp.MustCompile(`^<30>1 2029-02-03T03:05:06.123456Z \S+ web - - \[meta sequenceId="1"\] one$`)
	if got := next(t, messages); !want.MatchString(got) {
		t.Errorf("got %q", got)
	}
	if got := next(t, messages); !strings.HasSuffix(got, `sequenceId="2"] two`) {
		t.Errorf("got %q", got)
	}
	listener.Close()
	(<-conns).Close()
	<-to.(*syslog).broken
	s.queue.add(entry("web", "three"))
	time.Sleep(100 * time.Millisecond)
	listener, _ = listen(address)
	defer listener.Close()
	if got := next(t, messages); !strings.HasSuffix(got, `sequenceId="3"] three`) {
		t.Errorf("got %q", got)
	}
	// What is there at the end is sent.
	cancel()
	s.queue.add(entry("web", "last"))
	<-done
	s.run(ctx)
	if got := next(t, messages); !strings.HasSuffix(got, "] last") {
		t.Errorf("got %q", got)
	}
	// Another authority is not trusted.
	other, otherKey := certificate(t)
	config, err = tlsFiles{other, other, otherKey}.load()
	if err != nil {
		t.Fatal(err)
	}
	err = (&syslog{address: address, tls: config}).send(t.Context(), []memlog.Entry{entry("a", "b")})
	if unknown := new(x509.UnknownAuthorityError); !errors.As(err, unknown) {
		t.Errorf("error %v", err)
	}
}

// A queue has a bound, and counts what it drops.
func TestQueue(t *testing.T) {
	size := sizeOf(entry("s", "000000"))
	q := newQueue(10 * size)
	for i := range 25 {
		q.add(entry("s", fmt.Sprintf("%06d", i)))
	}
	batch, dropped := q.take(t.Context())
	if len(batch) != 10 || dropped != 15 || batch[0].Msg != "000015" || q.bytes != 0 {
		t.Errorf("%d entries from %q, %d dropped, %d bytes remain", len(batch), batch[0].Msg, dropped, q.bytes)
	}
	q = newQueue(64 << 20)
	for range maxBatch + 1 {
		q.add(entry("s", strings.Repeat("x", 2000)))
	}
	total := 0
	for _, most := range []int{maxBatchBytes / 2000, maxBatch, maxBatch} {
		batch, _ := q.take(t.Context())
		if total += len(batch); len(batch) == 0 || len(batch) > most {
			t.Errorf("%d entries", len(batch))
		}
	}
	if total != maxBatch+1 {
		t.Errorf("%d entries in three batches", total)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if batch, dropped := q.take(ctx); len(batch) != 0 || dropped != 0 {
		t.Errorf("an empty queue has %d entries", len(batch))
	}
}

// A collector is an OTLP server. Its responses have the statuses, then 200.
type fakeCollector struct {
	t        *testing.T
	mu       sync.Mutex
	statuses []int
	partial  int64
	requests int
	lines    []string
}

func (c *fakeCollector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests++
	if len(c.statuses) > 0 {
		status := c.statuses[0]
		c.statuses = c.statuses[1:]
		w.WriteHeader(status)
		return
	}
	if r.URL.Path != "/v1/logs" || r.Header.Get("Content-Type") != "application/x-protobuf" || r.Header.Get("X-Key") != "secret" {
		c.t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
	}
	z, err := gzip.NewReader(r.Body)
	if err != nil {
		c.t.Error(err)
		return
	}
	body, err := io.ReadAll(z)
	if err != nil {
		c.t.Error(err)
	}
	var request collector.ExportLogsServiceRequest
	if err := proto.Unmarshal(body, &request); err != nil {
		c.t.Error(err)
	}
	for _, r := range request.ResourceLogs {
		resource := map[string]string{}
		for _, a := range r.Resource.Attributes {
			resource[a.Key] = a.Value.GetStringValue()
		}
		for _, scope := range r.ScopeLogs {
			for _, record := range scope.LogRecords {
				c.lines = append(c.lines, fmt.Sprintf("%s %s %s %s %d %s", resource["team"], resource["os.type"], resource["service.name"], scope.Scope.Name, record.TimeUnixNano, record.Body.GetStringValue()))
			}
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	response := &collector.ExportLogsServiceResponse{}
	if c.partial > 0 {
		response.PartialSuccess = &collector.ExportLogsPartialSuccess{RejectedLogRecords: c.partial, ErrorMessage: "too old"}
	}
	text, err := proto.Marshal(response)
	if err != nil {
		c.t.Error(err)
	}
	w.Write(text)
}

func TestOTLP(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "X-Key=secret")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "team=ops")
	c := &fakeCollector{t: t, statuses: []int{503, 429, 500}}
	server := httptest.NewServer(c)
	defer server.Close()
	to, err := newSink(t.Context(), server.URL+"/v1/logs", &tls.Config{})
	if err != nil {
		t.Fatal(err)
	}
	s := newShipper("test", to, 1<<20)
	s.firstDelay, s.maxDelay = time.Millisecond, 10*time.Millisecond
	s.deliver(t.Context(), []memlog.Entry{entry("web", "lost, because 500 is final")})
	if c.requests != 3 || s.dropped != 1 {
		t.Errorf("%d requests, %d lines dropped", c.requests, s.dropped)
	}
	s.deliver(t.Context(), []memlog.Entry{entry("web", "one"), entry("db", "two"), entry("web", "three\xff")})
	at := moment.UnixNano()
	want := []string{
		fmt.Sprintf("ops linux web memlogd %d one", at), fmt.Sprintf("ops linux web memlogd %d three\uFFFD", at), fmt.Sprintf("ops linux db memlogd %d two", at),
	}
	if len(c.lines) > 0 && strings.Contains(c.lines[0], " db ") { // resources have no order
		want = []string{want[2], want[0], want[1]}
	}
	if diff := cmp.Diff(want, c.lines); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	c.partial = 1
	if err := to.send(t.Context(), []memlog.Entry{entry("web", "x")}); !errors.Is(err, errRejected) || !strings.Contains(err.Error(), "too old") {
		t.Errorf("partial success: %v", err)
	}
	server.Close()
	if err := to.send(t.Context(), []memlog.Entry{entry("web", "x")}); err == nil || errors.Is(err, errRejected) {
		t.Errorf("no server: %v", err)
	}
	// The number of loggers has a bound.
	o := to.(*otlp)
	for i := range 2 * maxLoggers {
		if _, err := o.logger(t.Context(), fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if len(o.loggers) > maxLoggers+1 {
		t.Errorf("%d loggers", len(o.loggers))
	}
}

// A destination can ask to wait.
func TestRetryAfter(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer server.Close()
	to, err := newSink(t.Context(), server.URL+"/v1/logs", &tls.Config{})
	if err != nil {
		t.Fatal(err)
	}
	var after retryAfter
	if err := to.send(t.Context(), []memlog.Entry{entry("a", "b")}); !errors.As(err, &after) || time.Duration(after) != 7*time.Second {
		t.Errorf("error %v", err)
	}
}

// TestRun ships from memlogd, which restarts, to a destination that is too slow at
// first. The program's own lines are not sent.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "socket")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for round := range 2 {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			io.ReadFull(conn, make([]byte, 1))
			for i := range 3 + round { // the second time, the first ones are sent again
				fmt.Fprintf(conn, `{"time":"2029-01-01T00:00:0%dZ","source":"web","msg":"line %d"}`+"\n", i, i)
			}
			fmt.Fprintf(conn, `{"time":"2029-01-01T00:00:09Z","source":"logship","msg":"own"}`+"\n")
			conn.Close()
		}
	}()
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	messages := make(chan string, 100)
	go func() {
		conn, err := server.Accept()
		if err == nil {
			readMessages(conn, messages)
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- run(ctx, socket, 1<<20, tlsFiles{}, []string{"syslog+tcp://" + server.Addr().String()})
	}()
	for i := range 4 {
		if got, want := next(t, messages), fmt.Sprintf("] line %d", i); !strings.HasSuffix(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	select {
	case m := <-messages:
		t.Errorf("got %q", m)
	default:
	}
}

func TestDestinations(t *testing.T) {
	for destination, want := range map[string]string{
		"syslog+tls://h":       "SCHEME://HOST:PORT",
		"syslog+tls://h:1/x":   "SCHEME://HOST:PORT",
		"udp://h:1":            "the scheme must be",
		"https://u:secret@h/x": "without a password",
		"https:///x":           "with a host",
		"syslog+tcp://%zz":     "invalid URL escape",
	} {
		if _, err := newSink(t.Context(), destination, nil); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: error %v, want one with %q", destination, err, want)
		}
	}
	if err := run(t.Context(), "", 1<<20, tlsFiles{}, nil); err == nil {
		t.Error("no destination: no error")
	}
	if _, err := (tlsFiles{certificate: "x"}).load(); err == nil {
		t.Error("-cert without -key: no error")
	}
}
