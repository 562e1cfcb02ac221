package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A cloud that does not answer yet is asked again. Containers that have bound
// the files meanwhile see the answer: the files stay the same.
func TestUntilAnswered(t *testing.T) {
	dir := t.TempDir()
	var runs int
	var delays []time.Duration
	answers := []provider{{name: "test", title: "Test", fetch: func(context.Context, *client, string) (*instance, error) {
		if runs++; runs < 8 {
			return nil, errors.New("not yet")
		}
		return &instance{keys: []string{"key"}, userData: []byte("data")}, nil
	}}}
	var bound []*os.File
	once := func() error { return run(t.Context(), answers, host{dir: dir}) }
	err := untilAnswered(dir, once, func(delay time.Duration) {
		if delays = append(delays, delay); len(delays) > 1 {
			return
		}
		for _, name := range []string{keysFile, userDataFile} {
			f, err := os.Open(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			bound = append(bound, f)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	second := time.Second
	if diff := cmp.Diff([]time.Duration{second, 2 * second, 4 * second, 8 * second, 16 * second, 30 * second, 30 * second}, delays); diff != "" {
		t.Errorf("delays (-want +got):\n%s", diff)
	}
	for i, want := range []string{"key\n", "data"} {
		got := make([]byte, 100)
		if n, _ := bound[i].Read(got); string(got[:n]) != want {
			t.Errorf("%s has %q, want %q", bound[i].Name(), got[:n], want)
		}
	}
	if err := untilAnswered(dir, once, nil); err != nil || runs != 8 {
		t.Errorf("after an answer: error %v, %d runs", err, runs)
	}
}

// Other errors end the wait: asking again would not change them.
func TestUntilAnsweredFails(t *testing.T) {
	failed := errors.New("failed")
	if err := untilAnswered(t.TempDir(), func() error { return failed }, nil); !errors.Is(err, failed) {
		t.Errorf("error %v", err)
	}
}
