// Package meminfo reads /proc/meminfo of machines in tests.
package meminfo

import (
	"regexp"
	"strconv"
	"testing"
)

var availableLine = regexp.MustCompile(`MemAvailable: *(\d+) kB`)

// Available returns the memory in KiB that programs can use without swapping, from
// the text of /proc/meminfo.
func Available(t testing.TB, text string) int {
	t.Helper()
	m := availableLine.FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("no MemAvailable:\n%s", text)
	}
	kib, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return kib
}
