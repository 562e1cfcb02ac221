package awstest

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"google.golang.org/grpc/test/bufconn"
)

// StartMemory is like [Start], but clients connect in memory, with
// [Server.DialContext]. Use it in a bubble of [testing/synctest], whose clock
// stands still while the client or the fake computes: timeouts do not depend on
// the speed of the machine.
func StartMemory(tb testing.TB, knobs Knobs) *Server {
	tb.Helper()
	s := New(knobs)
	tb.Cleanup(s.Close)
	s.memory = bufconn.Listen(64 << 10)
	s.http = &httptest.Server{Listener: s.memory, Config: &http.Server{Handler: s}}
	s.http.Start()
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
