package kmod

import (
	"slices"
	"testing"
)

func TestMatch(t *testing.T) {
	const ena = "pci:v00001D0Fd0000EC20sv00001D0Fsd0000EC20bc02sc00i00"
	for _, test := range []struct {
		pattern, text string
		want          bool
	}{
		{"pci:v00001D0Fd0000EC20sv*sd*bc*sc*i*", ena, true},
		{"pci:v00001D0Fd0000EC21sv*sd*bc*sc*i*", ena, false},
		{"pci:v*d*sv*sd*bc02sc00i*", ena, true},
		{"pci:v*d*sv*sd*bc01sc08i02*", ena, false},
		{"virtio:d00000001v*", "virtio:d00000001v00001AF4", true},
		{"virtio:d0000001Av*", "virtio:d00000001v00001AF4", false},
		{"acpi*:LNXPWRBN:*", "acpi:LNXPWRBN:", true},
		{"acpi*:PNP0C0C:*", "acpi:PNP0C0C:LNXPWRBN:", true},
		{"cpu:type:x86,ven*fam*mod*:feature:*0081*", "cpu:type:x86,ven0002fam000Fmod006B:feature:,0000,0081,0082", true},
		{"input:b*v*p*e*-e*1,*k*r*a*m*l*s*f*w*", "input:b0019v0000p0001e0000-e0,1,k74,ramlsfw", true},
		{"a?c", "abc", true},
		{"a?c", "ac", false},
		{"usb:d00[0-9A]*", "usb:d00A1", true},
		{"usb:d00[0-9A]*", "usb:d00B1", false},
		{"usb:d00[!0-9]*", "usb:d00B1", true},
		{"x[]-]y", "x]y", true},
		{"x[]-]y", "x-y", true},
		{"x[y", "x[y", true},
		{`x\*`, "x*", true},
		{`x\*`, "xy", false},
		{"abc", "abcd", false},
		{"abcd", "abc", false},
		{"abc*", "abc", true},
	} {
		if got := match(test.pattern, test.text); got != test.want {
			t.Errorf("match(%q, %q) = %v", test.pattern, test.text, got)
		}
	}
}

// testIndex returns an index of files in the form of depmod.
func testIndex(t *testing.T) *Index {
	t.Helper()
	x, err := Open("testdata/modules")
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestResolve(t *testing.T) {
	x := testIndex(t)
	for name, want := range map[string][]string{
		"virtio:d00000001v00001AF4": {"virtio_net"},
		"virtio-net":                {"virtio_net"},
		"fs-btrfs":                  {"btrfs"},
		"ext4":                      nil,
		"v":                         nil,
		"":                          nil,
	} {
		if got := x.Resolve(name); !slices.Equal(got, want) {
			t.Errorf("Resolve(%q) = %q, want %q", name, got, want)
		}
	}
	if !x.Builtin("ext4") || x.Builtin("btrfs") {
		t.Error("ext4 should be built in, btrfs not")
	}
}

func TestOrder(t *testing.T) {
	x := testIndex(t)
	for name, want := range map[string][]string{
		"virtio_net":    {"failover", "net_failover", "virtio_net"},
		"btrfs":         {"xxhash_generic", "crc32c_intel", "libcrc32c", "btrfs"},
		"mpls_iptunnel": {"mpls_iptunnel", "mpls_gso"},
	} {
		if got := x.Order(name); !slices.Equal(got, want) {
			t.Errorf("Order(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestNodes(t *testing.T) {
	got := testIndex(t).Nodes()
	want := []Node{{"loop-control", false, 10, 237}, {"net/tun", false, 10, 200}, {"floppy", true, 2, 0}}
	if !slices.Equal(got, want) {
		t.Errorf("nodes %v, want %v", got, want)
	}
}

func TestFiles(t *testing.T) {
	got := testIndex(t).Files("virtio_net", "nonesuch", "ext4", "net_failover", "btrfs")
	want := []string{
		"kernel/net/core/failover.ko", "kernel/drivers/net/net_failover.ko", "kernel/drivers/net/virtio_net.ko",
		"kernel/crypto/xxhash_generic.ko", "kernel/crypto/crc32c-intel.ko", "kernel/lib/libcrc32c.ko", "kernel/fs/btrfs/btrfs.ko.xz",
	}
	if !slices.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
}

// Arbitrary files never make Files return a module twice.
func FuzzRead(f *testing.F) {
	f.Add("a/x.ko: a/y.ko\na/y.ko:\n", "alias pci:v* x\n", "softdep x pre: y post: x\n", "x")
	f.Add("x", "alias", "softdep x pre:", "")
	f.Fuzz(func(t *testing.T, dep, alias, soft, name string) {
		x, err := Read(func(file string) ([]byte, error) {
			return []byte(map[string]string{"modules.dep": dep, "modules.alias": alias, "modules.softdep": soft}[file]), nil
		})
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for _, file := range x.Files(name, name) {
			if seen[file] {
				t.Errorf("%q is loaded twice", file)
			}
			seen[file] = true
		}
	})
}
