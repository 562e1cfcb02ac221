// Package need checks that the machine has what a test requires.
//
// `make test` prepares the machine for all tests and sets SLIPWAY_TEST_ALL.
// With that variable, or with CI, which CI systems set, a test fails if a
// requirement is missing. Without them the test is skipped, so that go test
// ./exporter/fat runs on a contributor's machine.
package need

import (
	"os"
	"os/exec"
	"testing"
)

// Program requires a program in PATH, which the Debian package installs.
func Program(t testing.TB, name, debianPackage string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		Missing(t, "%s is not installed (Debian package %s)", name, debianPackage)
	}
}

// File requires a file or directory that the Debian package installs.
func File(t testing.TB, path, debianPackage string) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		Missing(t, "%v (Debian package %s)", err, debianPackage)
	}
}

// Root requires that the test runs as root.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "requires root")
	}
}

// Missing ends the test because of a missing requirement. The reason is
// formatted as by [fmt.Sprintf].
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("SLIPWAY_TEST_ALL") != "" || os.Getenv("CI") != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}
