package segment

import (
	"strings"
	"testing"

	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/testutil/golden"
	"github.com/slipway-build/slipway/internal/testutil/treetest"
)

// images has trees to which the rules apply in different ways.
var images = map[string][]tree.Entry{
	"empty": {tree.NewDir(".")},
	"engine-traces": {
		{Path: ".", Type: tree.Dir, Mode: 0o750, UID: 9},
		tree.NewFile(".dockerenv", 0o755, ""),
		tree.NewFile("Dockerfile", 0o644, "FROM"),
		{Path: "dev", Type: tree.Dir, Mode: 0o700, UID: 8},
		{Path: "dev/console", Type: tree.Char, Mode: 0o600, Major: 5, Minor: 1},
		{Path: "dev/pts", Type: tree.Dir, Mode: 0o700},
		{Path: "dev/shm", Type: tree.Dir, Mode: 0o1777},
		{Path: "dev/zero", Type: tree.Char, Mode: 0o666, Major: 1, Minor: 5},
		{Path: "etc", Type: tree.Dir, Mode: 0o2750, GID: 50},
		tree.NewFile("etc/hostname", 0o644, "build"),
		tree.NewFile("etc/hosts", 0o600, "10.0.0.1 build"),
		tree.NewFile("etc/mtab", 0o640, "rootfs"),
		tree.NewFile("etc/resolv.conf", 0o600, "nameserver 10.0.0.2"),
		{Path: "proc", Type: tree.Dir, Mode: 0o511},
		tree.NewDir("sub"),
		tree.NewFile("sub/Dockerfile", 0o644, "kept"),
	},
	"traces-with-content": {
		tree.NewDir("."),
		{Path: "Dockerfile", Type: tree.Dir, Mode: 0o700},
		tree.NewFile("Dockerfile/kept", 0o644, ""),
		tree.NewDir("dev"),
		{Path: "dev/pts", Type: tree.Dir, Mode: 0o700},
		{Path: "dev/pts/0", Type: tree.Char, Mode: 0o620, Major: 136},
	},
	"links": {
		tree.NewDir("."),
		tree.NewSymlink("dev", "/"),
		tree.NewDir("etc"),
		tree.NewSymlink("etc/hosts", "/run/hosts"),
		tree.NewSymlink("etc/resolv.conf", "../run/resolv.conf"),
		tree.NewFile("proc", 0o644, ""),
	},
}

func TestApply(t *testing.T) {
	for name, entries := range images {
		for _, rules := range []Rules{RulesNone, RulesInit, RulesContainer, RulesVolume} {
			t.Run(name+"/"+string(rules), func(t *testing.T) {
				got, err := Apply(rules, entries)
				if err != nil {
					t.Fatal(err)
				}
				golden.Equal(t, "testdata/rules-"+name+"-"+string(rules)+".golden", treetest.Dump(t, got))
			})
		}
	}
}

func TestApplyUnknownRules(t *testing.T) {
	if _, err := Apply("service", nil); err == nil || !strings.Contains(err.Error(), `unknown rules "service": use init, container, volume or none`) {
		t.Errorf("error %v", err)
	}
}
