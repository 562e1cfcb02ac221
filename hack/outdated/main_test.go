package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

const (
	oldLock = `# Written by hack/debian-lock
# suite trixie
# snapshot 20261101T000000Z
kmod amd64 debian/pool/main/k/kmod/kmod_34.2-2_amd64.deb 00
kmod arm64 debian/pool/main/k/kmod/kmod_34.2-2_arm64.deb 01
libssl3t64 amd64 debian/pool/main/o/openssl/libssl3t64_3.5.8-1%7edeb13u1_amd64.deb 02
openssh/source source debian/pool/main/o/openssh/openssh_10.0p1.orig.tar.gz 03
openssh/source source debian/pool/main/o/openssh/openssh_10.0p1-7%2bdeb13u4.debian.tar.xz 04
`
	newLock = `# Written by hack/debian-lock
# suite trixie
# snapshot 20261128T160000Z
kmod amd64 debian/pool/main/k/kmod/kmod_34.2-2_amd64.deb 00
kmod arm64 debian/pool/main/k/kmod/kmod_34.2-2_arm64.deb 01
libssl3t64 amd64 debian/pool/main/o/openssl/libssl3t64_3.5.9-1%7edeb13u1_amd64.deb 05
openssh/source source debian/pool/main/o/openssh/openssh_10.0p1.orig.tar.gz 03
openssh/source source debian/pool/main/o/openssh/openssh_10.0p1-7%2bdeb13u5.debian.tar.xz 06
`
)

func TestDebian(t *testing.T) {
	var got []string
	for _, p := range comparePackages(oldLock, newLock, nil) {
		line := p.name + " " + p.pinned + " " + p.served
		if p.update != nil {
			line += " update"
		}
		got = append(got, line)
	}
	want := []string{
		"kmod 34.2-2 34.2-2",
		"libssl3t64 3.5.8-1~deb13u1 3.5.9-1~deb13u1 update",
		"openssh/source 10.0p1-7+deb13u4 10.0p1-7+deb13u5",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if got := date(newLock); got != "20261128" {
		t.Errorf("date %q", got)
	}
}

func TestDirect(t *testing.T) {
	got, err := direct(`{
		"Require": [
			{"Path": "a.org/direct", "Version": "v1.0.0"},
			{"Path": "a.org/tool", "Version": "v1.1.0", "Indirect": true},
			{"Path": "a.org/tools", "Version": "v1.2.0", "Indirect": true}
		],
		"Tool": [{"Path": "a.org/tool/cmd/x"}]
	}`)
	want := []required{{"a.org/direct", "v1.0.0", false}, {"a.org/tool", "v1.1.0", true}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v\nwant %v", got, err, want)
	}
}

func TestNewestPatch(t *testing.T) {
	versions := strings.Fields("1.25.9 1.26rc1 1.26.0 1.26.8 1.26.10 1.27rc1 1.27.0")
	if got := newestPatch("1.26.8", versions); got != "1.26.10" {
		t.Errorf("got %s", got)
	}
	if got := newestPatch("1.26.8", nil); got != "1.26.8" {
		t.Errorf("without versions: got %s", got)
	}
}

func TestNewestTag(t *testing.T) {
	a, b, c := strings.Repeat("a", 40), strings.Repeat("b", 40), strings.Repeat("c", 40)
	tag, commit := newestTag(a + "\trefs/tags/v9.9.9\n" + b + "\trefs/tags/v10.0.1\n" + c + "\trefs/tags/v10.0.1^{}\n" + a + "\trefs/tags/v11\n" + a + "\trefs/heads/v12.0.0\n")
	if tag != "v10.0.1" || commit != c {
		t.Errorf("got %s, %s", tag, commit)
	}
}

func TestTable(t *testing.T) {
	var out strings.Builder
	table(&out, []pin{
		{kind: "go", name: "a.org/same", pinned: "v1", served: "v1"},
		{kind: "go", name: "a.org/old", file: "go.mod", pinned: "v1", served: "v2"},
		{kind: "action", name: "a/b", file: "ci.yml", pinned: "v1", err: errors.New("git: exit status 128: fatal\nno such host")},
	})
	want := `KIND    NAME       PINNED  SERVED                 FILE
go      a.org/old  v1      v2                     go.mod
action  a/b        v1      unknown: no such host  ci.yml
3 pins: 1 outdated, 1 unknown
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

// TestChanges looks up the images in this checkout.
func TestChanges(t *testing.T) {
	t.Chdir("../..")
	got, err := changes([]pin{
		{kind: "debian", name: "nginx", pinned: "1", served: "2"},
		{kind: "debian", name: "kmod", pinned: "1", served: "1"},
		{kind: "debian", name: "systemd-boot-efi", pinned: "3", served: "4"},
		{kind: "go", name: "github.com/opencontainers/runc", file: "packages/runc/go.mod", pinned: "v1", served: "v2"},
		{kind: "pypi", name: "moto", pinned: "5", served: "6"},
	}, "20261128")
	want := "## v1-20261128\n\n- nginx 1 → 2: `nginx`\n- systemd-boot-efi 3 → 4: `slipway`\n- github.com/opencontainers/runc v1 → v2: `runc`\n"
	if err != nil || got != want {
		t.Errorf("got %q, %v\nwant %q", got, err, want)
	}
}
