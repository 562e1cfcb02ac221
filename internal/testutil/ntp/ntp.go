// Package ntp serves NTP to the machines of tests.
package ntp

import (
	"encoding/binary"
	"net"
	"testing"
	"time"
)

// Serve serves NTP on a port of 127.0.0.1 until the test ends. Its time at the
// start is the given one. Packets have the 48 bytes of RFC 5905, section 7.3.
func Serve(t *testing.T, start time.Time) (port int) {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	begin := time.Now()
	go func() {
		for {
			packet := make([]byte, 128)
			n, client, err := conn.ReadFromUDP(packet)
			if err != nil {
				return // the test is over
			}
			if n >= 48 {
				conn.WriteToUDP(reply(packet, start.Add(time.Since(begin))), client) // NTP expects that packets get lost
			}
		}
	}()
	return conn.LocalAddr().(*net.UDPAddr).Port
}

func reply(packet []byte, now time.Time) []byte {
	const (
		epoch = (70*365 + 17) * 24 * 60 * 60  // Unix epoch in seconds since the NTP epoch
		head  = 4<<3 | 4<<0 | 1<<8 | 0xec<<24 // version 4, server, stratum 1, precision 2^-20 s
	)
	stamp := uint64(now.Unix()+epoch)<<32 | uint64(now.Nanosecond())<<32/uint64(time.Second) // the era is lost
	answer := make([]byte, 48)
	binary.LittleEndian.PutUint32(answer, head)
	binary.BigEndian.PutUint64(answer[16:], stamp) // reference
	copy(answer[24:32], packet[40:48])             // origin: when the client sent
	binary.BigEndian.PutUint64(answer[32:], stamp) // receive
	binary.BigEndian.PutUint64(answer[40:], stamp) // transmit
	return answer
}
