package containerd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"

	"golang.org/x/net/http2/hpack"
)

// The init makes a handful of calls, each with one request and one response. A
// gRPC library would be larger than the rest of the program, so this file
// implements the calls: gRPC over HTTP/2
// (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md), with one
// connection per call and one stream per connection.

// Frames of HTTP/2, RFC 9113, section 6.
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	frameReset        = 0x3
	frameSettings     = 0x4
	framePing         = 0x6
	frameGoAway       = 0x7
	frameWindowUpdate = 0x8
	frameContinuation = 0x9

	flagEndStream  = 0x1 // of data and headers
	flagAck        = 0x1 // of settings and ping
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20

	settingInitialWindow = 0x4

	preface       = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	frameHeader   = 9
	maxFrame      = 16 << 10 // the size that every peer accepts
	defaultWindow = 65535
	maxResponse   = 1 << 20 // far larger than any response
	stream        = 1
)

// call makes one call. method is "/package.Service/Method"; headers alternate
// names and values.
func call(ctx context.Context, socket, method string, request []byte, headers ...string) ([]byte, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	c := &connection{conn: conn, streamWindow: defaultWindow, window: defaultWindow}
	c.decoder = hpack.NewDecoder(4096, c.header)
	err = c.send(method, request, headers)
	for err == nil && !c.ended {
		err = c.receive()
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnavailable, method, err)
	}
	return c.response(method)
}

// A connection is a connection with its only stream.
type connection struct {
	conn                 net.Conn
	decoder              *hpack.Decoder
	window, streamWindow int // bytes of data that the peer still accepts

	httpStatus, status, message string // of the response
	block                       []byte // headers so far
	body                        []byte
	ended                       bool
}

func (c *connection) header(f hpack.HeaderField) {
	switch f.Name {
	case ":status":
		c.httpStatus = f.Value
	case "grpc-status":
		c.status = f.Value
	case "grpc-message":
		c.message = f.Value
	}
}

// send sends the request. A message starts with a byte that says it is not
// compressed, and its length.
func (c *connection) send(method string, request []byte, headers []string) error {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	fields := append([]string{
		":method", "POST", ":scheme", "http", ":path", method, ":authority", "localhost", "content-type", "application/grpc", "te", "trailers",
	}, headers...)
	for i := 0; i+1 < len(fields); i += 2 {
		if err := encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
			return err
		}
	}
	// The windows are as large as the largest response, so they need no
	// updates.
	settings := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(nil, settingInitialWindow), maxResponse)
	first := append([]byte(preface), frame(frameSettings, 0, 0, settings)...)
	first = append(first, frame(frameWindowUpdate, 0, 0, binary.BigEndian.AppendUint32(nil, maxResponse-defaultWindow))...)
	first = append(first, frame(frameHeaders, flagEndHeaders, stream, block.Bytes())...)
	if _, err := c.conn.Write(first); err != nil {
		return err
	}
	data := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(request))), request...)
	for len(data) > 0 {
		n := min(len(data), maxFrame, c.window, c.streamWindow)
		if n <= 0 { // wait until the peer accepts more
			if err := c.receive(); err != nil {
				return err
			}
			if c.ended {
				return nil // an error arrived before the whole request was sent
			}
			continue
		}
		flags := byte(0)
		if n == len(data) {
			flags = flagEndStream
		}
		if _, err := c.conn.Write(frame(frameData, flags, stream, data[:n])); err != nil {
			return err
		}
		data = data[n:]
		c.window -= n
		c.streamWindow -= n
	}
	return nil
}

func frame(kind, flags byte, stream uint32, payload []byte) []byte {
	out := binary.BigEndian.AppendUint32(nil, uint32(len(payload))<<8|uint32(kind))
	out = append(out, flags)
	out = binary.BigEndian.AppendUint32(out, stream)
	return append(out, payload...)
}

// receive reads and handles one frame.
func (c *connection) receive() error {
	var head [frameHeader]byte
	if _, err := io.ReadFull(c.conn, head[:]); err != nil {
		return err
	}
	length := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
	kind, flags, id := head[3], head[4], binary.BigEndian.Uint32(head[5:])
	if length > maxFrame {
		return errors.New("a frame is longer than allowed")
	}
	payload := make([]byte, length)
	if _, err := io.ReadFull(c.conn, payload); err != nil {
		return err
	}
	switch kind {
	case frameHeaders, frameContinuation, frameData:
		return c.receiveContent(kind, flags, payload)
	case frameSettings:
		return c.receiveSettings(flags, payload)
	case framePing:
		if flags&flagAck != 0 {
			return nil
		}
		_, err := c.conn.Write(frame(framePing, flagAck, 0, payload))
		return err
	case frameWindowUpdate:
		if len(payload) < 4 {
			return errors.New("a window update is too short")
		}
		more := int(binary.BigEndian.Uint32(payload) & 0x7fffffff)
		if id == 0 {
			c.window += more
		} else {
			c.streamWindow += more
		}
	case frameGoAway:
		return errors.New("the connection is being closed")
	case frameReset:
		return errors.New("the call was reset")
	}
	return nil
}

// receiveSettings applies and acknowledges the settings of the peer.
func (c *connection) receiveSettings(flags byte, payload []byte) error {
	if flags&flagAck != 0 {
		return nil
	}
	for ; len(payload) >= 6; payload = payload[6:] {
		if binary.BigEndian.Uint16(payload) == settingInitialWindow {
			c.streamWindow += int(binary.BigEndian.Uint32(payload[2:])) - defaultWindow
		}
	}
	_, err := c.conn.Write(frame(frameSettings, flagAck, 0, nil))
	return err
}

// receiveContent adds the headers or the data of a frame to the response.
func (c *connection) receiveContent(kind, flags byte, payload []byte) error {
	payload, err := content(payload, flags, kind)
	if err != nil {
		return err
	}
	if kind == frameData {
		if c.body = append(c.body, payload...); len(c.body) > maxResponse {
			return errors.New("the response is too long")
		}
		c.ended = flags&flagEndStream != 0
		return nil
	}
	c.block = append(c.block, payload...)
	if flags&flagEndHeaders != 0 {
		if _, err := c.decoder.Write(c.block); err != nil {
			return err
		}
		c.block = nil
	}
	c.ended = c.ended || kind == frameHeaders && flags&flagEndStream != 0
	return nil
}

// content removes padding and priority from a frame.
func content(payload []byte, flags, kind byte) ([]byte, error) {
	errShort := errors.New("a frame is too short")
	padding := 0
	if flags&flagPadded != 0 && kind != frameContinuation {
		if len(payload) < 1 {
			return nil, errShort
		}
		padding, payload = int(payload[0]), payload[1:]
	}
	if flags&flagPriority != 0 && kind == frameHeaders {
		if len(payload) < 5 {
			return nil, errShort
		}
		payload = payload[5:]
	}
	if padding > len(payload) {
		return nil, errShort
	}
	return payload[:len(payload)-padding], nil
}

// response returns the message of the response.
func (c *connection) response(method string) ([]byte, error) {
	if c.status == "" {
		return nil, fmt.Errorf("%s: HTTP status %q and no gRPC status", method, c.httpStatus)
	}
	if c.status != "0" {
		code, err := strconv.Atoi(c.status)
		if err != nil {
			return nil, fmt.Errorf("%s: gRPC status %q", method, c.status)
		}
		message := c.message
		if plain, err := url.PathUnescape(message); err == nil { // percent-encoded
			message = plain
		}
		return nil, &Error{code, message}
	}
	if len(c.body) < 5 || c.body[0] != 0 || int(binary.BigEndian.Uint32(c.body[1:])) != len(c.body)-5 {
		return nil, fmt.Errorf("%s: the response is not one uncompressed message", method)
	}
	return c.body[5:], nil
}
