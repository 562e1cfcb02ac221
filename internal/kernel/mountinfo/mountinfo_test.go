package mountinfo

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	const text = `23 1 0:2 / / ro,relatime shared:1 - rootfs rootfs rw,size=468076k
25 23 0:22 / /var rw,nosuid shared:3 master:2 - tmpfs tmpfs rw
31 23 259:1 / /mnt/my\040disk rw - ext4 /dev/nvme0n1p1 rw
nonsense
`
	want := []Mount{
		{"/", "rootfs", "rootfs"},
		{"/var", "tmpfs", "tmpfs"},
		{"/mnt/my disk", "ext4", "/dev/nvme0n1p1"},
	}
	if diff := cmp.Diff(want, parse(text)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestRead(t *testing.T) {
	mounts, err := Read()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(mounts, func(m Mount) bool { return m.Path == "/proc" && m.Type == "proc" }) {
		t.Errorf("/proc is missing: %+v", mounts)
	}
}
