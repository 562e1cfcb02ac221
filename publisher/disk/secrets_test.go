package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	exporterdisk "github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/disk/disktest"
	"github.com/slipway-build/slipway/exporter/erofs"
	"github.com/slipway-build/slipway/exporter/gpt"
	"github.com/slipway-build/slipway/exporter/mbr"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/exporter/squashfs"
	"github.com/slipway-build/slipway/exporter/tree"
)

const (
	// The tests join these texts, so that no scanner takes this file for a leak.
	pem   = "-----BEGIN %sPRIVATE " + "KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj\n"
	hash  = "$6$" + "salt$0123456789abcdef"
	key   = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ user@host\n"
	token = "abcdefghijklmnopqrstuvwxyz0123456789"
)

// Each file has the secret that its name and content show, and others have none.
func TestFileSecrets(t *testing.T) {
	const aws40 = "wJalrXUtnFEMIK7MDENGbPxRfiCYzzzzzzzzzKEY"
	for _, test := range []struct{ name, content, want string }{
		{"etc/ssl/private/web.key", fmt.Sprintf(pem, ""), "a private key"},
		{"srv/key", "text\n" + fmt.Sprintf(pem, "RSA "), "a private key"},
		{"srv/key", strings.ReplaceAll(fmt.Sprintf(pem, "OPENSSH "), "\n", "\r\n"), "a private key"},
		{"srv/key", "-----BEGIN RSA PRIVATE " + "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nMIIEvQIBADANBgkqhkiG\n", "a private key"},
		{"usr/bin/ssh", "\x7fELF\x00-----BEGIN OPENSSH PRIVATE " + "KEY-----\x00-----END", ""},
		{"etc/ssl/certs/ca.pem", strings.ReplaceAll(fmt.Sprintf(pem, ""), "PRIVATE", "PUBLIC"), ""},
		{"root/key.asc", "-----BEGIN PGP PRIVATE " + "KEY BLOCK-----\n\nlQOY", "a private key of PGP"},
		{"etc/wireguard/wg0.conf", "[Interface]\nPrivateKey = " + strings.Repeat("A", 43) + "=\n", "a private key of WireGuard"},
		{"etc/ssh/ssh_host_ed25519_key", fmt.Sprintf(pem, "OPENSSH "), "an ssh host key: all machines have the same"},
		{"etc/dropbear/dropbear_rsa_host_key", "\x00\x00\x00\x07ssh-rsa", "an ssh host key: all machines have the same"},
		{"etc/ssh/ssh_host_ed25519_key.pub", key, ""},
		{"etc/ssh/ssh_host_ed25519_key", "", ""},

		{"etc/shadow", "root:*::0:::::\ndaemon:!::0:::::\nuser:!" + hash + ":1::::::\nsvc:x:1::::::\n", ""},
		{"etc/shadow", "root:" + hash + ":1::::::\n", `the password hash of the user "root"`},
		{"containers/services/getty/rootfs/etc/shadow", "root:abcdefghijklm:1::::::\n", `the password hash of the user "root"`},
		{"etc/getty.shadow", "root:" + hash + ":1::::::\n", `the password hash of the user "root"`},
		{"etc/shadow", "root:::0:::::\n", `the user "root" needs no password`},
		{"etc/passwd", "root:x:0:0::/root:/bin/sh\nbin:*:1:1::/:\n", ""},
		{"etc/passwd", "root::0:0::/root:/bin/sh\n", `the user "root" needs no password`},
		{"usr/share/doc/passwd", "root::0:0::/root:/bin/sh\n", ""},

		{"containers/services/getty/config.json", `{"process":{"env":["PATH=/bin","INSECURE=true"]}}`, "INSECURE=true in the environment of a container: a login needs no password"},
		{"containers/services/getty/config.json", `{"process":{"env":["INSECURE=false"]}}`, ""},

		{"root/.ssh/authorized_keys", "# comment\n" + key + `from="10.0.0.1" ` + key, "2 ssh keys that may log in (declared)"},
		{"containers/services/sshd/rootfs/root/.ssh/authorized_keys", key, "1 ssh keys that may log in, from a container image"},
		{"root/.ssh/authorized_keys", "# " + key, ""},

		{"root/.aws/credentials", "[default]\naws_secret_access_key = " + aws40 + "\n", "credentials of AWS"},
		{"srv/env", "export AWS_SECRET_ACCESS_KEY=" + aws40 + "\n", "credentials of AWS"},
		{"srv/env", "export AWS_SECRET_ACCESS_KEY=$SECRET\n", ""},
		{"srv/gcp.json", `{"type": "service_account", "private_key": "x"}`, "credentials of Google Cloud"},
		{"srv/config", "token: ghp_" + token, "a token of GitHub"},
		{"root/.docker/config.json", `{"auths":{"registry.example":{"auth":"dXNlcjpwYXNz"}}}`, "credentials of registries"},
		{"root/.docker/config.json", `{"auths":{}}`, ""},
		{"root/.git-credentials", "https://user:secret@git.example", "credentials of Git"},
		{"root/.netrc", "machine git.example login user password secret", "passwords"},
		{"root/.npmrc", "//registry.example/:_authToken=secret", "credentials of npm"},
		{"root/.npmrc", "registry=https://registry.example", ""},
		{"root/.kube/config", "users:\n- user:\n    client-key-data: AAAA\n", "credentials of Kubernetes"},

		{"root/.bash_history", "ls\n", "a history of commands"},
		{"root/.ash_history", "", ""},
		{"srv/app/.git/config", "[core]\n", "a Git repository with its history"},
		{"srv/app/.gitignore", "x\n", ""},
	} {
		var got []string
		for _, s := range fileSecrets(test.name, []byte(test.content)) {
			what := s.What
			if s.Declared {
				what += " (declared)"
			}
			got = append(got, what)
		}
		if all := strings.Join(got, "; "); all != test.want {
			t.Errorf("%s: got %q, want %q", test.name, all, test.want)
		}
	}
}

// Secrets are found wherever a disk can have them.
func TestSecrets(t *testing.T) {
	secret := member{"etc/web.key", fmt.Sprintf(pem, "")}
	inner := Secret{Path: "etc/web.key", What: "a private key"}
	harmless := archive(t, member{"init", "#!/bin/sh\n"}, member{"etc/large", strings.Repeat("x", 3<<20)})
	loader := disktest.Program(0x8664, 0x400)
	for what, test := range map[string]struct {
		files map[string][]byte
		want  []Secret
	}{
		"none":                  {map[string][]byte{"EFI/BOOT/BOOTX64.EFI": loader, "initrd.img": harmless}, nil},
		"unified kernel image":  {map[string][]byte{"EFI/BOOT/BOOTX64.EFI": unifiedKernel(t, disktest.Kernel(release), archive(t, secret))}, []Secret{inner}},
		"compressed":            {map[string][]byte{"initrd.img": zstded(archive(t, secret))}, []Secret{inner}},
		"second segment":        {map[string][]byte{"initrd.img": slices.Concat(harmless, gzipped(archive(t, secret)))}, []Secret{inner}},
		"replaced":              {map[string][]byte{"initrd.img": slices.Concat(archive(t, secret), archive(t, member{secret.path, "x"}))}, []Secret{inner}},
		"no boot configuration": {map[string][]byte{"old/initrd": archive(t, secret)}, []Secret{inner}},
		"file of the partition": {map[string][]byte{"web.key": []byte(secret.content)}, []Secret{{Path: "web.key", What: "a private key"}}},
		"large":                 {map[string][]byte{"initrd.img": archive(t, member{secret.path, secret.content + strings.Repeat("x", 3<<20)})}, []Secret{inner}},
		"repository":            {map[string][]byte{"initrd.img": archive(t, member{"srv/.git/HEAD", "ref"}, member{"srv/.git/config", "x"})}, []Secret{{Path: "srv/.git", What: "a Git repository with its history"}}},
		"command line": {
			map[string][]byte{"loader/entries/one.conf": []byte("linux /kernel\noptions console=ttyS0 INSECURE=true\n")},
			[]Secret{{Path: "loader/entries/one.conf", What: "INSECURE=true on the kernel command line: a login needs no password"}},
		},
		"GRUB": {
			map[string][]byte{"grub/grub.cfg": []byte("linux /kernel INSECURE=true\n")},
			[]Secret{{Path: "grub/grub.cfg", What: "INSECURE=true on the kernel command line: a login needs no password"}},
		},
	} {
		found, unread, err := open(t, save(t, gptDisk(t, nil, test.files))).Secrets(t.Context())
		if err != nil || len(unread) > 0 || !slices.Equal(found, test.want) {
			t.Errorf("%s: got %v, %q, %v, want %v", what, found, unread, err, test.want)
		}
	}
}

// Root file systems are searched in partitions and in files.
func TestSecretsOfRoots(t *testing.T) {
	entries := []tree.Entry{
		tree.NewDir("."), tree.NewDir("etc"), tree.NewFile("etc/empty.key", 0o600, ""), tree.NewFile("etc/web.key", 0o600, fmt.Sprintf(pem, "")),
		tree.NewDir("srv"), tree.NewDir("srv/.git"), tree.NewSymlink("srv/web.key", "../etc/web.key"),
	}
	want := []Secret{{Path: "etc/web.key", What: "a private key"}, {Path: "srv/.git", What: "a Git repository with its history"}}
	f, err := os.Create(filepath.Join(t.TempDir(), "squashfs"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := squashfs.Write(f, entries, squashfs.Options{Compression: "zstd", Level: 1, Time: time.Unix(0, 0)}); err != nil {
		t.Fatal(err)
	}
	packed, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	content, err := erofs.New(entries, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	plain := make([]byte, content.Size)
	if _, err := content.ReadAt(plain, 0); err != nil {
		t.Fatal(err)
	}
	for name, root := range map[string][]byte{"SquashFS": packed, "EROFS": plain} {
		inPartition := gptDisk(t, nil, nil)
		copy(inPartition[2048*512:4096*512], root)
		writeTable(t, inPartition, gpt.Table{Sectors: uint64(len(inPartition) / 512), ID: gpt.Derive("disk", nil), Partitions: []gpt.Partition{
			{Type: gpt.TypeLinux, ID: gpt.Derive("root", nil), First: 2048, Last: 4095, Name: "root"},
		}})
		for where, data := range map[string][]byte{"partition": inPartition, "file": gptDisk(t, nil, map[string][]byte{"root.img": root})} {
			found, unread, err := open(t, save(t, data)).Secrets(t.Context())
			if err != nil || len(unread) > 0 || !slices.Equal(found, want) {
				t.Errorf("%s in a %s: got %v, %q, %v", name, where, found, unread, err)
			}
		}
		found, unread, err := open(t, save(t, gptDisk(t, nil, map[string][]byte{"root.img": root[:map[string]int{"SquashFS": 120, "EROFS": 1200}[name]]}))).Secrets(t.Context())
		if err != nil || len(found) > 0 || len(unread) != 1 || !strings.HasPrefix(unread[0], `"root.img" is not searched for secrets: `) {
			t.Errorf("truncated %s: got %v, %q, %v", name, found, unread, err)
		}
	}
}

// The root file system of a disk with dm-verity is searched too, and its hash tree is
// not reported as a file system that cannot be.
func TestSecretsVerity(t *testing.T) {
	root, err := erofs.New(tree.AddParents([]tree.Entry{
		tree.NewFile("srv/web.key", 0o600, fmt.Sprintf(pem, "")), tree.NewFile("srv/.git/HEAD", 0o644, "ref"), tree.NewFile("etc/motd", 0o644, "hello"),
	}), time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	loaders, err := exporterdisk.ReadLoaders(disktest.Loaders(t), "amd64")
	if err != nil {
		t.Fatal(err)
	}
	d, err := exporterdisk.NewVerity(exporterdisk.Contents{Kernel: sparse.Bytes(disktest.Kernel(release))}, root, "amd64", loaders, 0, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(d.Reader())
	if err != nil {
		t.Fatal(err)
	}
	found, unread, err := open(t, save(t, data)).Secrets(t.Context())
	want := []Secret{{Path: "srv/.git", What: "a Git repository with its history"}, {Path: "srv/web.key", What: "a private key"}}
	if err != nil || len(unread) > 0 || !slices.Equal(found, want) {
		t.Errorf("got %v, %q, %v, want %v", found, unread, err, want)
	}
}

// What cannot be searched is reported, and does not hide the rest.
func TestSecretsUnread(t *testing.T) {
	key := []byte(fmt.Sprintf(pem, ""))
	broken := zstded(archive(t, member{"x", strings.Repeat("abc", 1000)}))
	data := gptDisk(t, nil, map[string][]byte{"broken.img": broken[:len(broken)-8], "web.key": key})
	const espFirst = 4096
	writeTable(t, data, gpt.Table{Sectors: uint64(len(data) / 512), ID: gpt.Derive("disk", nil), Partitions: []gpt.Partition{
		{Type: gpt.TypeLinux, ID: gpt.Derive("root", nil), First: 2048, Last: 4095, Name: "root"},
		{Type: gpt.TypeESP, ID: gpt.Derive("esp", nil), First: espFirst, Last: 64<<20/512 - 2049, Name: "esp"},
	}})
	data[2048*512+99] = 1
	found, unread, err := open(t, save(t, data)).Secrets(t.Context())
	if err != nil || len(found) != 1 || len(unread) != 2 ||
		unread[0] != `partition 1 "root" is not searched for secrets: its file system is not known` ||
		!strings.HasPrefix(unread[1], `the rest of the initramfs in "broken.img" is not searched for secrets: `) {
		t.Errorf("got %v, %q, %v", found, unread, err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := open(t, save(t, data)).Secrets(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	if _, _, err := open(t, save(t, make([]byte, 4096))).Secrets(t.Context()); !errors.Is(err, mbr.ErrFormat) {
		t.Errorf("no disk: %v", err)
	}
}

// An initramfs that unpacks to more than the limit ends the search.
func TestSecretsLimit(t *testing.T) {
	initrd := gzipped(archive(t, member{"zeros", string(make([]byte, 4<<20))}, member{"etc/web.key", fmt.Sprintf(pem, "")}))
	s := searcher{ctx: t.Context(), left: 1 << 20, seen: map[Secret]bool{}}
	s.initramfs("initrd.img", bytes.NewReader(initrd))
	if len(s.found) > 0 || len(s.unread) != 1 || !strings.Contains(s.unread[0], "too large") {
		t.Errorf("got %v, %q", s.found, s.unread)
	}
}
