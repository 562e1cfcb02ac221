package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/slipway-build/slipway/guest/memlog"
)

// syslogTimeout is for a connection, and for each batch.
const syslogTimeout = 30 * time.Second

// A syslog sends messages of RFC 5424 with octet counting (RFC 5425, 4.3 and RFC
// 6587, 3.4.1). The protocol has no acknowledgement: what the kernel has accepted
// is lost if the connection breaks.
type syslog struct {
	address string
	tls     *tls.Config // nil: TCP alone

	conn     net.Conn
	broken   chan struct{} // closed when the server has closed the connection
	host     string
	sequence int // of the last message
}

func (s *syslog) send(ctx context.Context, batch []memlog.Entry) error {
	if s.conn != nil {
		select {
		case <-s.broken:
			s.close()
		default:
		}
	}
	if s.conn == nil {
		if err := s.connect(ctx); err != nil {
			return err
		}
	}
	var b bytes.Buffer
	sequence := s.sequence
	for _, e := range batch {
		if sequence++; sequence < 0 || sequence > maxSequence {
			sequence = 1
		}
		message := format(e, s.host, sequence)
		b.WriteString(strconv.Itoa(len(message)))
		b.WriteByte(' ')
		b.Write(message)
	}
	s.conn.SetWriteDeadline(time.Now().Add(syslogTimeout))
	stop := context.AfterFunc(ctx, func() { s.conn.SetWriteDeadline(time.Now()) })
	defer stop()
	if _, err := s.conn.Write(b.Bytes()); err != nil {
		s.close()
		return err
	}
	s.sequence = sequence
	return nil
}

func (s *syslog) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, syslogTimeout)
	defer cancel()
	var conn net.Conn
	var err error
	dialer := &net.Dialer{KeepAlive: 30 * time.Second}
	if s.tls != nil {
		conn, err = (&tls.Dialer{NetDialer: dialer, Config: s.tls}).DialContext(ctx, "tcp", s.address)
	} else {
		conn, err = dialer.DialContext(ctx, "tcp", s.address)
	}
	if err != nil {
		return err
	}
	if s.host, err = os.Hostname(); err != nil {
		s.host = ""
	}
	s.conn, s.broken = conn, make(chan struct{})
	go func(broken chan struct{}) { // servers send nothing
		defer close(broken)
		for buffer := make([]byte, 512); ; {
			if _, err := conn.Read(buffer); err != nil {
				return
			}
		}
	}(s.broken)
	return nil
}

func (s *syslog) close() {
	s.conn.Close()
	s.conn = nil
}

// maxSequence is the largest sequenceId (RFC 5424, 7.3.1).
const maxSequence = 1<<31 - 1

// format returns a message: facility daemon, severity informational, and as
// APP-NAME the name of the log. The text is not changed, except that it must not
// look like UTF-8 if it is not.
func format(e memlog.Entry, host string, sequence int) []byte {
	const priority = 3*8 + 6
	text := e.Msg
	if !utf8.ValidString(text) {
		text = strings.ToValidUTF8(text, "\uFFFD")
	}
	return fmt.Appendf(nil, "<%d>1 %s %s %s - - [meta sequenceId=\"%d\"] %s",
		priority, e.Time.UTC().Format("2006-01-02T15:04:05.000000Z07:00"), field(host, 255), field(e.Source, 48), sequence, text)
}

// field returns a field of the header: at most max printable ASCII characters
// without spaces, or the NILVALUE.
func field(text string, max int) string {
	var b strings.Builder
	for _, c := range text {
		if b.Len() == max {
			break
		}
		if c < '!' || c > '~' {
			c = '_'
		}
		b.WriteRune(c)
	}
	if b.Len() == 0 {
		return "-"
	}
	return b.String()
}
