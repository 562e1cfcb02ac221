package test

import (
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/buildkitd"
	"github.com/slipway-build/slipway/internal/testutil/stack"
)

// rootless gives the settings of a daemon that runs without root.
func rootless(t *testing.T) buildkitd.Config {
	t.Helper()
	u, err := user.Lookup("slipway-rootless")
	if err == nil {
		_, err = exec.LookPath("rootlesskit")
	}
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("no daemon without root, make test prepares it: %v", err)
	}
	id := func(s string) uint32 {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		return uint32(n)
	}
	return buildkitd.Config{
		Command: []string{"rootlesskit", "--net=host", "--copy-up=/etc", "--copy-up=/run"},
		User:    &syscall.Credential{Uid: id(u.Uid), Gid: id(u.Gid)},
	}
}

// oldest gives the settings of a daemon of the oldest BuildKit that we promise to work with: hack/oldest has its version.
func oldest(t *testing.T) buildkitd.Config {
	t.Helper()
	root, err := stack.Root()
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(root, ".stack", "oldest", "buildkitd")
	if _, err := os.Stat(binary); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("no old daemon, make test compiles it: %v", err)
	}
	return buildkitd.Config{Binary: binary}
}

// fresh starts an empty daemon.
func fresh(t *testing.T, c buildkitd.Config) *buildkitd.Daemon {
	t.Helper()
	d, err := buildkitd.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// metered puts a meter before a registry.
func metered(t *testing.T, registry string) *buildkitd.Meter {
	t.Helper()
	m, err := buildkitd.StartMeter(registry)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Stop() })
	return m
}
