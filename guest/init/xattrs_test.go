package main

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRestoreXattrs(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may set file capabilities")
	}
	root := t.TempDir()
	program := filepath.Join(root, "bin", "ping")
	for _, dir := range []string{"bin", ".xattrs"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// As exporter/segment writes it: cap_net_raw=ep, version 2 (linux/capability.h).
	const want = "0100000200200000000000000000000000000000"
	list := `{"bin/ping":{"security.capability":"AQAAAgAgAAAAAAAAAAAAAAAAAAA="}}`
	for name, text := range map[string]string{program: "", filepath.Join(root, ".xattrs", "0"): list} {
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := restoreXattrs(filepath.Join(root, ".xattrs")); err != nil {
		t.Fatal(err)
	}
	value := make([]byte, 64)
	n, err := unix.Lgetxattr(program, "security.capability", value)
	if got := hex.EncodeToString(value[:max(n, 0)]); err != nil || got != want {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := os.Stat(filepath.Join(root, ".xattrs")); !os.IsNotExist(err) {
		t.Errorf("the list is still there: %v", err)
	}
	if err := restoreXattrs(filepath.Join(root, ".xattrs")); err != nil {
		t.Errorf("without a list: %v", err)
	}
}
