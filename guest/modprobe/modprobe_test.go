package modprobe

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/internal/kernel/cmdline"
	"github.com/slipway-build/slipway/internal/kernel/kmod"
)

func TestLoader(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"modules.dep": `kernel/drivers/net/virtio_net.ko: kernel/drivers/net/net_failover.ko kernel/net/core/failover.ko
kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko
kernel/net/core/failover.ko:
kernel/fs/btrfs/btrfs.ko.xz: kernel/lib/libcrc32c.ko
kernel/lib/libcrc32c.ko:
kernel/crypto/crc32c-intel.ko:
kernel/crypto/xxhash_generic.ko:
kernel/net/mpls/mpls_gso.ko:
kernel/net/mpls/mpls_iptunnel.ko:
`,
		"modules.alias": `alias virtio:d00000001v* virtio_net
alias fs-btrfs btrfs
alias crc32c crc32c_intel
alias crypto-xxhash64 xxhash_generic
`,
		"modules.softdep": `softdep btrfs pre: crypto-xxhash64
softdep libcrc32c pre: crc32c
softdep mpls_iptunnel post: mpls_gso
`,
		"modules.builtin": "kernel/fs/ext4/ext4.ko\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	x, err := kmod.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var calls []string
	l := NewLoader(x, cmdline.Parse(`virtio-net.napi_tx=0 virtio_net.csum btrfs.note="two words" modprobe.blacklist=btrfs,mpls-gso`))
	l.insert = func(path, params string) error {
		rel, err := filepath.Rel(dir, path)
		calls = append(calls, rel+" "+params)
		switch rel {
		case "kernel/crypto/crc32c-intel.ko": // a soft dependency that fails does no harm
			err = unix.ENODEV
		case "kernel/net/mpls/mpls_iptunnel.ko":
			err = unix.EPERM
		}
		return err
	}
	for range 2 { // the second time there is nothing left to do
		if err := l.LoadFor("virtio:d00000001v00001AF4"); err != nil {
			t.Error(err)
		}
	}
	if err := l.LoadFor("fs-btrfs"); err != nil {
		t.Error(err)
	}
	if err := l.Load("fs-btrfs"); err != nil {
		t.Error(err)
	}
	for range 2 { // tried once, reported always
		if err := l.Load("mpls_iptunnel"); !errors.Is(err, unix.EPERM) {
			t.Errorf("Load mpls_iptunnel: %v, want the kernel's error", err)
		}
	}
	if err := l.Load("ext4"); err != nil {
		t.Errorf("Load of what is built in: %v", err)
	}
	if err := l.Load("nonesuch"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Load nonesuch: %v", err)
	}
	want := []string{
		"kernel/net/core/failover.ko ",
		"kernel/drivers/net/net_failover.ko ",
		"kernel/drivers/net/virtio_net.ko napi_tx=0 csum",
		"kernel/crypto/xxhash_generic.ko ",
		"kernel/crypto/crc32c-intel.ko ",
		"kernel/lib/libcrc32c.ko ",
		`kernel/fs/btrfs/btrfs.ko.xz note="two words"`,
		"kernel/net/mpls/mpls_iptunnel.ko ",
		"kernel/net/mpls/mpls_gso.ko ",
	}
	if !slices.Equal(calls, want) {
		t.Errorf("inserted\n%q, want\n%q", calls, want)
	}
}
