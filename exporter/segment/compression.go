package segment

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
)

// Compression says how a segment is compressed. The zero value is no valid
// compression: use ParseCompression.
type Compression struct {
	Algorithm string // "zstd", "gzip" or "none"
	Level     int
}

// Levels as users of the zstd and gzip programs know them. BenchmarkPack shows
// what they cost: the default of zstd packs some 70 MB/s on one processor, and
// beyond it 15 MB/s are the price of a few percent.
const (
	zstdMin, zstdDefault, zstdMax = 1, 7, 22
	gzipMin, gzipDefault, gzipMax = 1, 6, 9
)

// zstdWindow is how far back a match may lie, in bytes. The kernel allocates as
// much to unpack a segment, so it does not grow with the level. Programs that
// share code, as those written in Go do, profit up to here.
const zstdWindow = 16 << 20

// ParseCompression reads "zstd", "gzip" or "none", the first two also with a
// level: "zstd:19", "gzip:9". Levels of zstd go from 1 to 22, of which the
// encoder tells apart four ranges (1–2, 3–5, 6–9, 10–22); of gzip from 1 to 9.
func ParseCompression(s string) (Compression, error) {
	name, level, hasLevel := strings.Cut(s, ":")
	c := Compression{Algorithm: name}
	var low, high int
	switch name {
	case "zstd":
		c.Level, low, high = zstdDefault, zstdMin, zstdMax
	case "gzip":
		c.Level, low, high = gzipDefault, gzipMin, gzipMax
	case "none":
		if hasLevel {
			return Compression{}, fmt.Errorf("compression %q: none has no level", s)
		}
		return c, nil
	default:
		return Compression{}, fmt.Errorf("compression %q: use zstd, gzip or none", s)
	}
	if hasLevel {
		n, err := strconv.Atoi(level)
		if err != nil || n < low || n > high {
			return Compression{}, fmt.Errorf("compression %q: the level of %s is a number from %d to %d", s, name, low, high)
		}
		c.Level = n
	}
	return c, nil
}

// String gives the form that ParseCompression reads.
func (c Compression) String() string {
	if c.Algorithm == "none" {
		return c.Algorithm
	}
	return fmt.Sprintf("%s:%d", c.Algorithm, c.Level)
}

// newWriter compresses into w as one frame.
func (c Compression) newWriter(w io.Writer) (io.WriteCloser, error) {
	switch c.Algorithm {
	case "zstd":
		return zstd.NewWriter(w,
			zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(c.Level)),
			zstd.WithWindowSize(zstdWindow),
			zstd.WithEncoderConcurrency(1)) // archives are compressed side by side
	case "gzip":
		return pgzip.NewWriterLevel(w, c.Level)
	case "none":
		return nopCloser{w}, nil
	}
	return nil, fmt.Errorf("unknown compression %q", c.Algorithm)
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// detect finds the algorithm of a cpio segment by its first bytes. The level
// cannot be seen: it is the default.
func detect(name string) (Compression, error) {
	f, err := os.Open(name)
	if err != nil {
		return Compression{}, err
	}
	defer f.Close()
	var head [6]byte
	n, err := io.ReadFull(f, head[:])
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return Compression{}, err
	}
	for magic, name := range map[string]string{"\x28\xb5\x2f\xfd": "zstd", "\x1f\x8b": "gzip", "070701": "none"} {
		if bytes.HasPrefix(head[:n], []byte(magic)) {
			return ParseCompression(name)
		}
	}
	return Compression{}, fmt.Errorf("%s is no cpio segment: it starts with % x", name, head[:n])
}
