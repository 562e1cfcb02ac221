package test

import (
	"os/user"
	"strconv"
	"syscall"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/buildkitd"
	"github.com/slipway-build/slipway/internal/testutil/need"
	"github.com/slipway-build/slipway/internal/testutil/stack"
)

// rootless returns the configuration of a daemon that runs without root.
func rootless(t *testing.T) buildkitd.Config {
	t.Helper()
	need.Program(t, "rootlesskit", "rootlesskit")
	u, err := user.Lookup("slipway-rootless")
	if err != nil {
		need.Missing(t, "%v: run make test, which adds the user", err)
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

// oldest returns the configuration of a daemon of the oldest supported
// BuildKit, whose version is in hack/oldest/go.mod.
func oldest(t *testing.T) buildkitd.Config {
	t.Helper()
	return buildkitd.Config{Binary: stack.File(t, "oldest", "buildkitd")}
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
