package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/need"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/internal/contract"
)

func TestRestoreXattrs(t *testing.T) {
	need.Root(t)
	root := t.TempDir()
	program := filepath.Join(root, "bin", "ping")
	for _, dir := range []string{"bin", contract.XattrsDir} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// cap_net_raw=ep, version 2 (linux/capability.h).
	const want = "\x01\x00\x00\x02\x00\x20" + "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	list, err := contract.Xattrs{"bin/ping": {"security.capability": []byte(want)}}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{program: "", filepath.Join(root, contract.XattrsFile): string(list)} {
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := restoreXattrs(filepath.Join(root, contract.XattrsDir)); err != nil {
		t.Fatal(err)
	}
	value := make([]byte, 64)
	n, err := unix.Lgetxattr(program, "security.capability", value)
	if got := string(value[:max(n, 0)]); err != nil || got != want {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := os.Stat(filepath.Join(root, contract.XattrsDir)); !os.IsNotExist(err) {
		t.Errorf("the list is still there: %v", err)
	}
	if err := restoreXattrs(filepath.Join(root, contract.XattrsDir)); err != nil {
		t.Errorf("without a list: %v", err)
	}
}
