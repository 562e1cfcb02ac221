// Package reserve is the file of a machine in which user data is written after
// the build. The build reserves it, slipway customize fills it, and the metadata
// package reads it.
//
// The file has the size that the build reserves: a header of HeaderSize bytes,
// which is the text "slipway-reserve 1 " with the length of the data in decimal
// digits, and a newline; the data; and NULs.
package reserve

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// The file and its directory, without a leading slash.
const (
	Dir  = "etc/slipway"
	Path = Dir + "/reserve"
)

// HeaderSize is the size of the header in bytes.
const HeaderSize = len(magic) + digits + 1

const (
	magic  = "slipway-reserve 1 "
	digits = 13
)

// Encode returns a file of size bytes with data. It fails if the data does not
// fit.
func Encode(data []byte, size int64) ([]byte, error) {
	room := size - int64(HeaderSize)
	if int64(len(data)) > room {
		return nil, fmt.Errorf("the user data has %d bytes, but the image reserves %d", len(data), max(0, room))
	}
	file := make([]byte, size)
	copy(file, fmt.Sprintf("%s%0*d\n", magic, digits, len(data)))
	copy(file[HeaderSize:], data)
	return file, nil
}

// Decode returns the data of a file, nil if there is none.
func Decode(file []byte) ([]byte, error) {
	invalid := errors.New("not a file that a build reserves for user data")
	if len(file) < HeaderSize || !bytes.HasPrefix(file, []byte(magic)) || file[HeaderSize-1] != '\n' {
		return nil, invalid
	}
	text := string(file[len(magic) : HeaderSize-1])
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || strings.Trim(text, "0123456789") != "" || n > int64(len(file)-HeaderSize) {
		return nil, invalid
	}
	if n == 0 {
		return nil, nil
	}
	return file[HeaderSize : int64(HeaderSize)+n], nil
}
