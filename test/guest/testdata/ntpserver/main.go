// Command ntpserver serves NTP on 127.0.0.1 with its own time. Packets have the
// 48 bytes of RFC 5905, 7.3.
package main

import (
	"encoding/binary"
	"log"
	"net"
	"time"
)

const (
	start = 1_861_920_000                 // its time at the start: 2029-01-01, in Unix seconds; openntpd of Debian rejects all servers from 2030 on
	epoch = (70*365 + 17) * 24 * 60 * 60  // Unix epoch in seconds since the NTP epoch
	head  = 4<<3 | 4<<0 | 1<<8 | 0xec<<24 // version 4, server, stratum 1, precision 2^-20 s
)

func main() {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 123})
	if err != nil {
		log.Fatal(err)
	}
	begin := time.Now()
	for {
		packet := make([]byte, 128)
		n, client, err := conn.ReadFromUDP(packet)
		if err != nil {
			log.Fatal(err)
		}
		if n < 48 {
			continue
		}
		passed := time.Since(begin)
		now := uint64(start+epoch+passed/time.Second)<<32 | uint64(passed%time.Second)<<32/uint64(time.Second)
		answer := make([]byte, 48)
		binary.LittleEndian.PutUint32(answer, head)
		binary.BigEndian.PutUint64(answer[16:], now) // reference
		copy(answer[24:32], packet[40:48])           // origin: when the client sent
		binary.BigEndian.PutUint64(answer[32:], now) // receive
		binary.BigEndian.PutUint64(answer[40:], now) // transmit
		if _, err := conn.WriteToUDP(answer, client); err != nil {
			log.Print(err)
		}
	}
}
