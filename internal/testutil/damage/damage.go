// Package damage checks that readers of formats reject damaged files.
package damage

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

// Cases are changes of a valid file that a reader must reject, by the name of a
// test.
type Cases map[string]struct {
	Change func(file []byte) []byte
	Want   string // part of the error
}

// Rejected checks the errors of read for damaged files and for zeros. Each must
// be one of kinds; the one for zeros is the first.
func Rejected[T any](t *testing.T, read func(io.ReaderAt, int64) (T, error), file []byte, cases Cases, kinds ...error) {
	t.Helper()
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			damaged := c.Change(bytes.Clone(file))
			_, err := read(bytes.NewReader(damaged), int64(len(damaged)))
			if !slices.ContainsFunc(kinds, func(kind error) bool { return errors.Is(err, kind) }) || !strings.Contains(err.Error(), c.Want) {
				t.Errorf("error %v, want %q", err, c.Want)
			}
		})
	}
	if _, err := read(bytes.NewReader(make([]byte, 64<<10)), 64<<10); !errors.Is(err, kinds[0]) {
		t.Errorf("zeros: %v, want %v", err, kinds[0])
	}
}
