package main

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func zipped(t *testing.T, text []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestCloudConfig applies everything that machines follow.
func TestCloudConfig(t *testing.T) {
	packed := base64.StdEncoding.EncodeToString(zipped(t, []byte("zipped\n")))
	text := `#cloud-config
hostname: web-7
ssh_authorized_keys:
  - ssh-ed25519 AAAA admin
ssh_pwauth: false
users:
  - default
  - name: alice
    gecos: Alice A.
    lock_passwd: true
    ssh_authorized_keys: [ssh-ed25519 BBBB alice, ssh-rsa CCCC alice]
  - {name: bob, uid: 1000}
  - name: root
    ssh_authorized_keys: [ssh-ed25519 DDDD root]
write_files:
  - path: /run/config/app/plain
    content: |
      two
      lines
  - {path: /var/config/app/link, content: "x", permissions: '0640', owner: 'root:root'}
  - {path: /var/lib/app/base64, content: aGVsbG8K, encoding: b64, permissions: 0600}
  - {path: /var/lib/app/zipped, content: "` + packed + `", encoding: gz+b64}
  - {path: /var/lib/app/binary, content: !!binary aGVsbG8K, defer: true}
  - {path: /var/lib/app/twice, content: "one\n"}
  - {path: /var/lib/app/twice, content: "two\n", append: true}
  - {path: /var/lib/app/empty}
ntp:
  enabled: true
  ntp_client: chrony
  servers: [10.0.0.1, "fd00::1", time.example.com]
  pools: [pool.ntp.org]
mounts:
  - [sdf, /var/lib/data]
  - [LABEL=my data, /var/more, ext4, "ro,noatime,x-systemd.requires=x,discard", "0", 2]
`
	found := newInstance()
	found.values["hostname"] = "ip-10-0-0-7"
	found.keys = []string{"ssh-ed25519 EEEE cloud"}
	found.userData = []byte(text)
	h := host{dir: t.TempDir(), variable: t.TempDir()}
	hostname := ""
	h.setHostname = func(name []byte) error { hostname = string(name); return nil }
	var mounts []string
	h.mount = func(m cloudMount) error { mounts = append(mounts, fmt.Sprintf("%+v", m)); return nil }
	if err := run(t.Context(), fixed(found), h); err != nil {
		t.Fatal(err)
	}
	if hostname != "web-7" {
		t.Errorf("host name %q", hostname)
	}
	want := map[string]string{
		"provider":                 "-rw-r--r-- Test",
		"hostname":                 "-rw-r--r-- web-7",
		"userdata":                 "-rw-r--r-- " + text,
		"ssh":                      "drwxr-xr-x",
		"ssh/authorized_keys":      "-rw------- ssh-ed25519 EEEE cloud\nssh-ed25519 AAAA admin\nssh-ed25519 DDDD root\n",
		"ssh/passwd":               "-rw-r--r-- alice:*:1001:1001:Alice A.:/run/home/alice:/bin/sh\nbob:*:1000:1000::/run/home/bob:/bin/sh\n",
		"ssh/users":                "drwxr-xr-x",
		"ssh/users/alice":          "-rw-r--r-- ssh-ed25519 BBBB alice\nssh-rsa CCCC alice\n",
		"ssh/users/bob":            "-rw-r--r-- ",
		"ntp":                      "drwxr-xr-x",
		"ntp/cloud-config.sources": "-rw-r--r-- server 10.0.0.1 iburst\nserver fd00::1 iburst\nserver time.example.com iburst\npool pool.ntp.org iburst\n",
		"app":                      "drwxr-xr-x",
		"app/plain":                "-rw-r--r-- two\nlines\n",
		"app/link":                 "-rw-r----- x",
	}
	if diff := cmp.Diff(want, listing(t, h.dir)); diff != "" {
		t.Errorf("files in /run/config (-want +got):\n%s", diff)
	}
	want = map[string]string{
		"lib":            "drwxr-xr-x",
		"lib/app":        "drwxr-xr-x",
		"lib/app/base64": "-rw------- hello\n",
		"lib/app/zipped": "-rw-r--r-- zipped\n",
		"lib/app/binary": "-rw-r--r-- hello\n",
		"lib/app/twice":  "-rw-r--r-- one\ntwo\n",
		"lib/app/empty":  "-rw-r--r-- ",
	}
	if diff := cmp.Diff(want, listing(t, h.variable)); diff != "" {
		t.Errorf("files in /var (-want +got):\n%s", diff)
	}
	all := []string{
		fmt.Sprintf("%+v", cloudMount{source: "/dev/sdf", path: "lib/data", flags: unix.MS_RELATIME, nofail: true}),
		fmt.Sprintf("%+v", cloudMount{source: "LABEL=my data", path: "more", kind: "ext4", flags: unix.MS_RELATIME | unix.MS_RDONLY | unix.MS_NOATIME, data: "discard"}),
	}
	if diff := cmp.Diff(all, mounts); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
}

// TestCloudConfigRefuses gives every key that has no effect, and every value that
// is not valid. All are named.
func TestCloudConfigRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"runcmd: [reboot]":                                             "line 2: runcmd: refused: machines run no commands",
		"bootcmd: [reboot]":                                            "line 2: bootcmd: refused: machines run no commands",
		"packages: [vim]\ntimezone: UTC":                               "not supported, ignored: packages (line 2), timezone (line 3)",
		"ssh_pwauth: true":                                             "ignored: ssh_pwauth (line 2)",
		"ssh_pwauth: [x]":                                              "ignored: ssh_pwauth (line 2)",
		"\"a\\nb\": 1":                                                 `ignored: "a\nb" (line 2)`,
		"hostname: a_b":                                                `line 2: hostname: host name "a_b"`,
		"hostname: [a]":                                                "line 2: hostname: must be a string of one line",
		"hostname: a\nhostname: b":                                     "hostname",
		"ssh_authorized_keys: ssh-ed25519 AAAA":                        "line 2: ssh_authorized_keys: must be a list",
		"ssh_authorized_keys: [\"a\\nb\"]":                             "line 2: ssh_authorized_keys[0]: must be a string of one line",
		"users: [{name: a, sudo: x, shell: /bin/bash}]":                "ignored: users[0].sudo (line 2), users[0].shell (line 2)",
		"users: [{name: A}]":                                           `users[0]: name "A"`,
		"users: [{name: sshd}]":                                        `users[0]: name "sshd"`,
		"users: [{name: a, uid: 0}]":                                   "users[0].uid: must be 1000 to 60000",
		"users: [{name: a, gecos: 'x:0:0'}]":                           "users[0]: gecos must not contain a colon",
		"users: [a, a]":                                                "users[1]: user a: the name or the uid is taken",
		"write_files: [{path: /etc/passwd}]":                           `write_files[0].path: "/etc/passwd": must be a file below /run/config or /var`,
		"write_files: [{path: /var/../etc/passwd}]":                    `write_files[0].path: "/var/../etc/passwd"`,
		"write_files: [{path: var/x}]":                                 `write_files[0].path: "var/x"`,
		"write_files: [{path: /var}]":                                  `write_files[0].path: "/var"`,
		"write_files: [{path: /var/x/}]":                               `write_files[0].path: "/var/x/"`,
		"write_files: [{path: /var/.metadata-partial}]":                `write_files[0].path`,
		"write_files: [{content: x}]":                                  "write_files[0]: path is missing",
		"write_files: [{path: /var/x, permissions: '4755'}]":           `write_files[0].permissions: "4755": must be an octal mode up to 0777`,
		"write_files: [{path: /var/x, permissions: 'rw'}]":             `write_files[0].permissions: "rw"`,
		"write_files: [{path: /var/x, owner: 'nobody'}]":               "write_files[0].owner: must be root:root",
		"write_files: [{path: /var/x, encoding: rot13}]":               `write_files[0]: unknown encoding "rot13"`,
		"write_files: [{path: /var/x, encoding: b64, content: '?'}]":   "write_files[0]: illegal base64 data",
		"write_files: [{path: /var/x, encoding: gzip, content: 'no'}]": "write_files[0]: ",
		"write_files: [{path: /var/x, source: {uri: 'http://x'}}]":     "write_files[0].source: not supported",
		"write_files: {path: /var/x}":                                  "write_files: must be a list",
		"ntp: {servers: [\"a b\"]}":                                    `ntp.servers[0]: "a b": must be a host name or an IP address`,
		"ntp: {servers: [\"x\\nallow\"]}":                              "ntp.servers[0]: must be a string of one line",
		"ntp: {config: {confpath: /x}, ntp_client: ntp}":               "ignored: ntp.config (line 2), ntp.ntp_client (line 2)",
		"mounts: [[a]]":                                                "mounts[0]: must be a list of a device",
		"mounts: [[/dev/sdf, /data]]":                                  `mounts[0]: mount point "/data": must be below /var`,
		"mounts: [[/dev/sdf, /run/config/x]]":                          `mounts[0]: mount point "/run/config/x"`,
		"mounts: [[/etc/passwd, /var/x]]":                              `mounts[0]: device "/etc/passwd"`,
		"mounts: [[PARTUUID=../x, /var/x]]":                            `mounts[0]: device "PARTUUID=../x"`,
		"mounts: [[sdf, /var/x, ext4, errors=panic]]":                  `mounts[0]: mount option "errors=panic" is not supported`,
		"mounts: [[/swap, none, swap]]":                                "mounts[0]: swap is not supported",
		"- a":                                                          "line 2: the document: must be a mapping",
		"a: [":                                                         "nothing of it is used",
		"a: 1\n---\nb: 1":                                              "nothing of it is used",
		"# " + strings.Repeat("x", maxCloudConfig):                     "longer than 262144 bytes: nothing of it is used",
		// 9000 times a file of 8 KiB
		"x: &a {path: /var/x, content: '" + strings.Repeat("y", 8<<10) + "'}\nwrite_files: [" + strings.Repeat("*a,", 9000) + "]":  "all values together are longer than",
		"x: &a [" + strings.Repeat("z,", 1000) + "]\nusers: [" + strings.Repeat("{name: q, ssh_authorized_keys: *a},", 2000) + "]": "all values together are longer than",
	} {
		config, err := parseCloudConfig([]byte("#cloud-config\n" + text + "\n"))
		if config.ignored != "" {
			err = errors.Join(err, errors.New(config.ignored))
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: error %.300v, want one with %q", text, err, want)
		}
		if len(config.files)+len(config.mounts)+len(config.time) > 2000 {
			t.Errorf("%.80s: %d files", text, len(config.files))
		}
	}
	// A valid part holds despite the rest.
	config, err := parseCloudConfig([]byte("#cloud-config\nruncmd: [x]\nhostname: a\nwrite_files: [{path: /etc/x}, {path: /var/x}]\n"))
	if err == nil || config.hostname != "a" || len(config.files) != 1 {
		t.Errorf("error %v, config %+v", err, config)
	}
	for _, text := range []string{"#cloud-config", "#cloud-config\n", "#cloud-config\n# nothing\n", "#cloud-config\n{}", "#cloud-config\nusers:\nntp:\n"} {
		if _, err := parseCloudConfig([]byte(text)); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestIsCloudConfig(t *testing.T) {
	for text, want := range map[string]bool{
		"#cloud-config": true, "#cloud-config \r\nx: 1": true, "#cloud-config-archive\n": false, "#!/bin/sh\n": false, "{}": false, "": false,
	} {
		if got := isCloudConfig([]byte(text)); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// What is ignored and refused is on the console. Only the latter is an error.
func TestCloudConfigReports(t *testing.T) {
	for text, fails := range map[string]bool{"packages: [vim]": false, "runcmd: [x]\nhostname: a_b": true} {
		var console strings.Builder
		h := host{dir: t.TempDir(), variable: t.TempDir(), console: &console}
		found := newInstance()
		found.userData = []byte("#cloud-config\n" + text + "\n")
		err := run(t.Context(), fixed(found), h)
		if errors.Is(err, errCloudConfig) != fails || (err != nil) != fails {
			t.Errorf("%s: error %v", text, err)
		}
		for line := range strings.Lines(text) {
			key, _, _ := strings.Cut(line, ":")
			if !strings.Contains(console.String(), key) {
				t.Errorf("the console does not name %s: %s", key, console.String())
			}
		}
	}
}

// Files of user data do not follow symbolic links out of /var.
func TestCloudConfigIsConfined(t *testing.T) {
	outside := t.TempDir()
	h := host{dir: t.TempDir(), variable: t.TempDir()}
	if err := os.Symlink(outside, filepath.Join(h.variable, "lib")); err != nil {
		t.Fatal(err)
	}
	found := newInstance()
	found.userData = []byte("#cloud-config\nwrite_files: [{path: /var/lib/x, content: y}]\n")
	if err := run(t.Context(), fixed(found), h); err == nil {
		t.Error("no error")
	}
	if files := listing(t, outside); len(files) > 0 {
		t.Errorf("written through the link: %v", files)
	}
}
