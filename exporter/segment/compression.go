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

// Compression is the compression of a segment. The zero value is invalid: use
// ParseCompression.
type Compression struct {
	Algorithm string // "zstd", "gzip" or "none"
	Level     int
}

// Levels as in the zstd and gzip programs. BenchmarkPack measures them. The
// default level of zstd is for builds that are booted soon: it takes 0.4 times
// the processor time of level 7 for 5 % more bytes. Level 19, for what is
// published, takes 8 times the processor time of the default for 11 % fewer.
const (
	zstdMin, zstdDefault, zstdMax = 1, 3, 22
	gzipMin, gzipDefault, gzipMax = 1, 6, 9
)

// zstdWindow is the maximum distance of matches in bytes. It does not grow with
// the level, because the kernel allocates as much to unpack a segment. Up to this
// size, segments with programs that share code, for example those in Go, get
// smaller.
const zstdWindow = 16 << 20

// ParseCompression parses "zstd", "gzip" or "none", the first two optionally with
// a level: "zstd:19", "gzip:9". The levels of zstd are 1 to 22, for which the
// encoder has four settings (1–2, 3–5, 6–9, 10–22); those of gzip are 1 to 9.
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

// String returns the form that ParseCompression parses.
func (c Compression) String() string {
	if c.Algorithm == "none" {
		return c.Algorithm
	}
	return fmt.Sprintf("%s:%d", c.Algorithm, c.Level)
}

// newWriter returns a writer that compresses to w as one frame.
func (c Compression) newWriter(w io.Writer) (io.WriteCloser, error) {
	switch c.Algorithm {
	case "zstd":
		return zstd.NewWriter(w,
			zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(c.Level)),
			zstd.WithWindowSize(zstdWindow),
			zstd.WithEncoderConcurrency(1)) // Write compresses archives in parallel
	case "gzip":
		compressor, err := pgzip.NewWriterLevel(w, c.Level)
		if err != nil {
			return nil, err
		}
		// The bytes depend on the block size alone.
		return compressor, compressor.SetConcurrency(1<<20, 4)
	case "none":
		return nopCloser{w}, nil
	}
	return nil, fmt.Errorf("unknown compression %q", c.Algorithm)
}

// maxParallel returns how many archives may be compressed at once. It bounds the
// memory of the encoders, which at high levels of zstd have 66 MB each.
func (c Compression) maxParallel() int {
	if c.Algorithm == "zstd" && c.Level >= 10 {
		return 2
	}
	return 4
}

// zstdMagic starts a frame (RFC 8878, section 3.1.1).
const zstdMagic = "\x28\xb5\x2f\xfd"

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// detect returns the algorithm of a cpio segment, from its first bytes, with the
// default level.
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
	for magic, name := range map[string]string{zstdMagic: "zstd", "\x1f\x8b": "gzip", "070701": "none"} {
		if bytes.HasPrefix(head[:n], []byte(magic)) {
			return ParseCompression(name)
		}
	}
	return Compression{}, fmt.Errorf("%s is not a cpio segment: it starts with % x", name, head[:n])
}
