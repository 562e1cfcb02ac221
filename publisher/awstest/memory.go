package awstest

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"google.golang.org/grpc/test/bufconn"
)

// StartMemory is like [StartTLS], but clients connect in memory, with
// [Server.DialContext]. Use it in a bubble of [testing/synctest], whose clock
// stands still while the client or the fake computes: timeouts do not depend on
// the speed of the machine.
func StartMemory(tb testing.TB, knobs Knobs) *Server {
	tb.Helper()
	s := New(knobs)
	s.memory = bufconn.Listen(64 << 10)
	s.http = &httptest.Server{Listener: loopback{s.memory}, Config: &http.Server{Handler: s}}
	s.startTLS(tb)
	return s
}

// DialContext connects a client to the fake. With [StartMemory], the address
// does not matter.
func (s *Server) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if s.memory != nil {
		return s.memory.DialContext(ctx)
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

// loopback is a listener with an address for which the certificate of httptest
// is valid.
type loopback struct{ net.Listener }

// Addr implements [net.Listener].
func (loopback) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }
