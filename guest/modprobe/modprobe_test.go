package modprobe

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/internal/kernel/cmdline"
	"github.com/slipway-build/slipway/internal/kernel/kmod"
)

func TestLoader(t *testing.T) {
	const dir = "../../internal/kernel/kmod/testdata/modules"
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
