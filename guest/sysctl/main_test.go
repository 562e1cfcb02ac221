package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestApply(t *testing.T) {
	root := t.TempDir()
	parameters := []string{"kernel/kptr_restrict", "net/ipv4/conf/all/rp_filter", "net/ipv4/conf/eth0.1/rp_filter", "vm/mode"}
	for _, name := range parameters {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("0\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	err := apply(root, "a.conf", `# a comment
; another

kernel.kptr_restrict = 2
net.ipv4.conf.*.rp_filter=1
net.ipv4.conf.eth0/1.rp_filter = 3
net.ipv6.*.none = 1
vm/mode = two words
-kernel.optional = 1
kernel.absent = 1
kernel.kptr_restrict
kernel/../../etc/passwd = x
`)
	for name, want := range map[string]string{
		"kernel/kptr_restrict": "2", "net/ipv4/conf/all/rp_filter": "1", "net/ipv4/conf/eth0.1/rp_filter": "3", "vm/mode": "two words",
	} {
		got, _ := os.ReadFile(filepath.Join(root, name))
		if strings.TrimSpace(string(got)) != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	want := `a.conf:10: kernel.absent: the kernel has no such parameter
a.conf:11: must be key = value, not "kernel.kptr_restrict"
a.conf:12: kernel/../../etc/passwd: not a parameter`
	if err == nil || err.Error() != want {
		t.Errorf("error:\n%v\nwant:\n%s", err, want)
	}
}
