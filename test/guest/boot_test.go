package guest

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/internal/testutil/eic"
	"github.com/slipway-build/slipway/internal/testutil/ntp"
	"github.com/slipway-build/slipway/internal/testutil/stack"
	"github.com/slipway-build/slipway/internal/vm"
	"github.com/slipway-build/slipway/internal/vm/cloud"
)

// TestBoot boots the machine of testdata/machine.yml, which reports its state
// on the console and powers off.
func TestBoot(t *testing.T) {
	t.Parallel()
	m := bootWith(t, build(t, "machine.yml"), vm.Config{CD: noCloud(t, `version: 2
ethernets:
  any:
    match: {macaddress: "52:54:00:12:34:56"} # that of QEMU's first card
    addresses: [169.254.7.7/16, "fd00::7/64"]
    mtu: 1400
    routes: [{to: 192.0.2.0/24, via: 169.254.0.2}, {to: default, via: "fd00::1"}]
    nameservers: {addresses: [169.254.0.3], search: [example.com]}
    wakeonlan: true
  port:
    match: {name: veth1}
    set-name: port0
bonds:
  bond0: {interfaces: [port], parameters: {mode: active-backup, resend-igmp: 2}}
vlans:
  v100: {id: 100, link: bond0, addresses: [10.100.0.5/24]}
bridges:
  br0: {interfaces: [], addresses: [10.101.0.5/24], parameters: {stp: false}}
`)})
	m.wait(t)
	m.says(t,
		`onboot 000-readonly: done in [\d.]+ s, exit 0`,
		`onboot 001-writable: done in [\d.]+ s, exit 0`,
		`onboot 002-fails: failed: exit 3\n +\| out of ideas`,
		`onboot 003-missing: failed: exit 1\n +\| .*/nonesuch: no such file.*`,
		`onboot 004-network: done in [\d.]+ s, exit 0`,
		`onboot 005-volume: done in [\d.]+ s, exit 0`,
		`containerd: ready in [\d.]+ s`,
		`service web: started in [\d.]+ s`,
		`service broken: failed: .*/nonesuch: no such file.*`,
		`machine is up, services started: 3`,
		`service short: ended, exit 7, see /var/log/short\.log\n +\| out of luck`,
		`REPORT root: rootfs / rootfs ro,[^\n]*`,
		`REPORT write: touch: /x: Read-only file system`,
		`REPORT hooks: first last`,
		`REPORT config: ok`,
		`REPORT onboot-log: /x cgroup 0::/001-writable, files 1048576`,
		`REPORT network-log: br7 lo veth0 wg0`,
		`REPORT netns: 1 kept`,
		`REPORT made: /run/setup /sys/fs/cgroup/pods/kubelet /var/lib/setup`,
		`REPORT controllers: (?:cpuset cpu io memory hugetlb pids rdma misc ?){2}`,
		`REPORT web-log: (out err|err out)`,
		`REPORT web-cgroup: [12]`,
		`REPORT hostname: linuxkit-[0-9a-f]{12}`,
		`REPORT memory: always madvise \[never\] \d{4}`,
		`REPORT modprobe: 1 modprobe: nonesuch: no such kernel module`,
		`REPORT zombies: 0`,
		`REPORT init-log: 1`,
		`onboot 007-dhcpcd: done in [\d.]+ s, exit 0`,
		`onboot 008-metadata: done in [\d.]+ s, exit 0`,
		`onboot 009-static: done in [\d.]+ s, exit 0`,
		`REPORT lease: 0 169\.254\.0\.15/16 1`,
		`REPORT addresses: 169\.254\.7\.7/16 fd00::7/64 1400`,
		`REPORT stacked: .* port0@\S+ .* master bond0 .* bond0: .* v100@bond0: .* inet 10\.100\.0\.5/24 .* inet 10\.101\.0\.5/24 .*`,
		`metadata: network-config: "ethernets\.any\.wakeonlan" is not supported: .*`,
		`metadata: network-config: "bonds\.bond0\.parameters\.resend-igmp" is not supported: .*`,
		`REPORT routes: 192\.0\.2\.0/24 via 169\.254\.0\.2 dev lan7 +default via fd00::1 dev lan7 .*`,
		`REPORT resolv: search example\.com nameserver 169\.254\.0\.3`,
		`REPORT ping: 1 packets received`,
		`REPORT volume: kept`,
		`poweroff`,
		`onshutdown 000-bye: done in [\d.]+ s, exit 0`,
		`poweroff now`,
	)
	if bytes.Contains(m.console(t), []byte("clean up:")) {
		t.Error("the mounts of a container remain")
	}
}

// noCloud creates a CD with the network configuration for the package metadata.
func noCloud(t *testing.T, networkConfig string) string {
	t.Helper()
	dir, cd := t.TempDir(), filepath.Join(t.TempDir(), "cidata.iso")
	for name, text := range map[string]string{"user-data": "", "meta-data": "instance-id: i-1\n", "network-config": networkConfig} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("xorriso", "-as", "mkisofs", "-quiet", "-V", "CIDATA", "-R", "-o", cd, dir).CombinedOutput(); err != nil {
		t.Fatalf("xorriso: %v\n%s", err, out)
	}
	return cd
}

// TestPolicy boots a machine whose containers fail, in the ways that
// annotations handle and in others.
func TestPolicy(t *testing.T) {
	t.Parallel()
	m := boot(t, build(t, "policy.yml"), "")
	m.wait(t)
	m.says(t,
		`onboot 000-hangs: failed: stopped after its timeout of 2s`,
		`service crash: ended, exit 3; restarting in \d+s`,
		`service hog: ended, killed by SIGKILL, out of memory, see /var/log/hog\.log`,
		`REPORT crash: (\d+) (\d+) `,
		`REPORT fill: .*No space left on device.* room `,
		`REPORT hog: service hog state failed .*`,
		`REPORT tasks: a-web report`,
		`containerd: killed by SIGKILL; restarting in 1s, see /var/log/containerd\.log`,
		`REPORT survives: running tick `,
		`REPORT back: another`,
		`REPORT stop: a-web: stopped a-web: running a-web: running 1`,
		`REPORT leftovers: a-web: stopped service: service a-web: failed: .* exists again`,
		`REPORT timeline: 1 1`,
		`REPORT wrong: service: no service nonesuch \(services: a-web, crash, database, fill, hog, report, sealed, sshd\) service: usage: service list`,
		`REPORT setuid:`,
		`REPORT keys: sshd: running ssh_host_ecdsa_key\.pub: OK ssh_host_ed25519_key\.pub: OK`,
		`REPORT seccomp: (Seccomp:\s2 .*Operation not permitted|.*Operation not permitted Seccomp:\s2)`,
		`REPORT noexec: 3`,
		`REPORT shim: last end +ended, killed (with its shim|by SIGKILL)`,
		`REPORT private: prw------- srw------- total [\d]+`,
		`service report: ended.*, see /var/log/report\.log`,
		`poweroff now`,
	)
	// A service starts after the one that it requires, and stops before it.
	m.inOrder(t, "service database: started", "service a-web: started", "poweroff", "service a-web: stopped", "service database: stopped")
}

// TestWithoutContainerd boots a machine without containerd, with cgroups of
// version 1, and stops it with the keyboard and the power button.
func TestWithoutContainerd(t *testing.T) {
	t.Parallel()
	dir := build(t, "runc.yml")
	t.Run("keys", func(t *testing.T) {
		m := boot(t, dir, "linuxkit.unified_cgroup_hierarchy=0")
		up := `(?s)machine is up`
		m.await(t, up)
		m.press(t, "sendkey ctrl-alt-delete")
		m.await(t, up+".*Linux version.*"+up[4:])
		m.await(t, `(?s)Linux version.*Linux version.*service crash: ended, exit 3; restarting in 2s`)
		m.press(t, "system_powerdown")
		m.wait(t)
		m.says(t,
			`containerd: not in this machine; running services with runc`,
			`this kernel has no controller memory for cgroups v1, .*`, // since Debian 13
			`cgroups: .*cpu:/web.*`,
			`service web: healthy [\d.]+ s after its start`,
			`reboot`,
			`poweroff`,
		)
		m.inOrder(t, "reboot now", "Linux version", "service web: stopped: ended, exit 0", "poweroff now")
	})
	// A batch job that powers the machine off has not failed.
	t.Run("batch", func(t *testing.T) {
		m := boot(t, dir, "test.batch")
		m.wait(t)
		m.says(t, `onboot 002-batch: stopped: the machine stops`)
		if bytes.Contains(m.console(t), []byte(": failed")) { // the kernel has other failures
			t.Error("the console says that something has failed")
		}
	})
	t.Run("halt", func(t *testing.T) {
		m := boot(t, dir, "test.fail=halt")
		m.await(t, `reboot: System halted`)
		m.says(t,
			`onboot 001-vital: failed: exit 1`,
			`onboot 001-vital: halt, as its annotation build\.slipway\.failure requires`,
			`halt now`,
		)
	})
	t.Run("reboot", func(t *testing.T) {
		m := boot(t, dir, "test.fail=reboot")
		m.await(t, `(?s)reboot now.*Linux version`)
		m.says(t,
			`onboot 000-lucky: failed: exit 1`,
			`onboot 000-lucky: reboot, as its annotation build\.slipway\.failure requires`,
		)
	})
}

// TestReboot boots a machine whose kernel panics, whose process 1 dies, and
// whose process 1 hangs. It reboots each time.
func TestReboot(t *testing.T) {
	t.Parallel()
	dir := build(t, "crash.yml")
	for name, how := range map[string]string{
		"panic": "sysrq: Trigger a crash",
		"dies":  "Attempted to kill init!",
		"hangs": "REPORT frozen",
	} {
		t.Run(name, func(t *testing.T) {
			m := bootAs(t, dir, vm.Config{NoNetwork: true, Cmdline: "slipway.watchdog=10 test.crash=" + name})
			m.awaitReboot(t, how)
			m.says(t, `REPORT panic: 10 1 1`)
		})
	}
	t.Run("asked", func(t *testing.T) {
		m := bootAs(t, dir, vm.Config{NoNetwork: true, Cmdline: "panic=7 sysctl.kernel.panic_on_oops=0 slipway.watchdog=0"})
		m.wait(t)
		m.says(t, `REPORT panic: 7 0 0`)
	})
}

// TestLinuxKitPackages boots a machine of LinuxKit packages.
func TestLinuxKitPackages(t *testing.T) {
	t.Parallel()
	stack.Require(t)
	var contexts []string
	for _, name := range []string{"ctr", "sysctl", "format", "mount", "dhcpcd", "getty", "kmsg", "node_exporter", "poweroff"} {
		dir := t.TempDir()
		stack.MustBuildx(t, ".", "--target", name, "-o", "type=oci,tar=false,dest="+dir, "testdata/linuxkit")
		contexts = append(contexts, "--build-context", "linuxkit/"+name+":v1=oci-layout://"+dir)
	}
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, 64<<20); err != nil {
		t.Fatal(err)
	}
	m := bootWith(t, build(t, "linuxkit.yml", contexts...), vm.Config{Disk: disk})
	m.wait(t)
	m.says(t,
		`onboot 000-sysctl: done in [\d.]+ s, exit 0`,
		`onboot 001-format: done in [\d.]+ s, exit 0`,
		`onboot 002-mount: done in [\d.]+ s, exit 0`,
		`onboot 003-dhcpcd: done in [\d.]+ s, exit 0`,
		`machine is up, services started: 4`,
		`REPORT kptr: 2 `,
		`REPORT disk: /dev/nvme0n1 /var/data ext4 rw,.*`,
		`REPORT resolv: nameserver 169\.254\..*`,
		`REPORT address: 1 `,
		`REPORT exporter: init /rootfs/containers/services/getty .*`,
		`REPORT kmsg: read `,
		`REPORT binds: programs onboot services /hostroot/etc/passwd `,
		`REPORT console: crw.* crw.*`,
	)
}

// TestServices boots a machine with the packages that are services, with -boot
// also docker, which takes minutes to compile.
func TestServices(t *testing.T) {
	t.Parallel()
	stack.Require(t)
	yaml, err := os.ReadFile("testdata/services.yml")
	if err != nil {
		t.Fatal(err)
	}
	port := ntp.Serve(t, time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC))
	yaml = bytes.Replace(yaml, []byte(" PORT "), fmt.Appendf(nil, " %d ", port), 1)
	services, docker, opens := 7, "", ""
	if *bootAll {
		services, docker, opens = 8, `docker \d+ RUNNING `, `docker opens sys/kernel/core_pattern docker opens sysrq-trigger`
	} else {
		yaml = regexp.MustCompile(`(?m)^.* # -boot\n`).ReplaceAll(yaml, nil)
	}
	file := filepath.Join(t.TempDir(), "services.yml")
	if err := os.WriteFile(file, yaml, 0o644); err != nil {
		t.Fatal(err)
	}
	m := bootWith(t, build(t, file), vm.Config{RTC: "2001-01-01T00:00:00"})
	m.await(t, `REPORT over`)
	m.typeLine(t, "root")
	m.await(t, `Password: `)
	m.typeLine(t, "correct horse")
	m.await(t, `[/~] # `)
	m.typeLine(t, "service list | sed s/^/REPORT./; poweroff")
	m.wait(t)
	m.says(t,
		fmt.Sprintf(`machine is up, services started: %d`, services),
		`REPORT logship: <30>1 linuxkit-\S+ onboot\.000-says\.out - - \[meta sequenceId="\d+"\] first`,
		`REPORT nginx: <title>Welcome to nginx!</title>`,
		`REPORT logread: onboot\.000-says(\.out;first onboot\.000-says;second|;second onboot\.000-says\.out;first) nginx;127\..* "GET / HTTP/1\.1" 200 .*`,
		`REPORT nginx-log: \S+ nginx 127\.0\.0\.1 - - \[.*\] "GET / HTTP/1\.1" 200 .*`,
		`REPORT metrics: node_exporter_build_info\{.*version="1\..*"\} 1 node_uname_info\{.*nodename="linuxkit-.*\} 1`,
		`REPORT filesystems: / /run /tmp /var`,
		`REPORT clock: 2040`,
		`REPORT chrony: Uid: 100 100 100 100 CapInh: 0000000002000000 CapPrm: 0000000002000000 CapEff: 0000000002000000 CapBnd: 0000000002000000 CapAmb: 0000000002000000 \^\* 169\.254\.0\.2 .*`,
		`REPORT escape: `+opens,
		`REPORT ctr: TASK PID STATUS chrony \d+ RUNNING `+docker+`getty \d+ RUNNING logship \d+ RUNNING logwrite \d+ RUNNING nginx \d+ RUNNING node_exporter \d+ RUNNING report \d+ RUNNING`,
		`REPORT.getty +running .*`,
	)
	if *bootAll {
		m.says(t, `REPORT docker: 67108864`)
	}
}

// TestConsole boots the machine of examples/minimal.yml, which has a shell on
// its console.
func TestConsole(t *testing.T) {
	t.Parallel()
	m := boot(t, build(t, "../../../examples/minimal.yml"), "")
	m.await(t, `machine is up`)
	m.await(t, `[/~] # `)
	m.typeLine(t, "echo REPORT $((6 * 7)) $(service list | grep -c '^getty .*running'); poweroff")
	m.wait(t)
	m.says(t, `REPORT 42 1`)
}

// TestStorage boots a machine that prepares its disks, twice. The disks are
// larger at the second boot.
func TestStorage(t *testing.T) {
	t.Parallel()
	dir := build(t, "storage.yml")
	disks := t.TempDir()
	run := func(name string, size int64, says ...string) {
		ok := t.Run(name, func(t *testing.T) {
			var data []vm.Drive
			for _, name := range []string{"one", "two", "three"} {
				disk := filepath.Join(disks, name)
				data = append(data, vm.Drive{File: disk})
				f, err := os.OpenFile(disk, os.O_CREATE|os.O_RDWR, 0o644)
				if err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
					t.Fatal(err)
				}
			}
			m := bootWith(t, dir, vm.Config{Data: data, NoNetwork: true})
			m.wait(t)
			m.says(t, says...)
			m.says(t,
				`REPORT recovered: 0`,
				`REPORT data: /dev/vd[abc]1 /var/data ext4 rw,relatime`,
				`REPORT more: /dev/vd[abc]1 /var/more xfs rw,relatime,.*`,
				`REPORT lib: /dev/vd[abc]1 /var/lib btrfs rw,relatime,.*`,
				`REPORT loop: /locked`,
				`REPORT locked: /dev/(mapper/locked|dm-\d) /var/locked ext4 rw,relatime`,
				`REPORT plain: /dev/mapper/plain /var/plain ext4 rw,relatime`,
				`REPORT links: 7`,
				`REPORT swaps: /swap 327\d\d /dm-\d 327\d\d`,
				`onboot \d+-noise-format: failed: exit 1\n +\| format: /dev/loop2 has unknown content, not ext4: not formatted.*`,
				`onboot \d+-noise-crypt: failed: exit 1\n +\| crypto: no filesystem found with the key in /etc/dm-crypt/key, .*: /dev/loop2 has unknown content.*`,
				`onboot \d+-noise-luks: failed: exit 1\n +\| crypto: /dev/loop2 has unknown content, not LUKS: not changed`,
				`onboot \d+-condition: done .*`,
				`REPORT keys: /var/lib/ssh/ssh_host_ecdsa_key\.pub: OK /var/lib/ssh/ssh_host_ed25519_key\.pub: OK`,
				`REPORT sysfs: 64 64 64`,
				`REPORT modules: dummy softdog`,
				`poweroff now`,
			)
		})
		if !ok {
			t.FailNow()
		}
	}
	run("new", 400<<20,
		`REPORT said: formatted /dev/vd[abc]1 as ext4 "data" formatted /dev/vd[abc]1 as xfs "more" formatted /dev/vd[abc]1 as btrfs "tree"`,
		`REPORT extended: (.*already as large as the disk){3}`,
		`REPORT sizes:( 3\d\d){3}`,
		`REPORT boots: one, one, one, one, one`,
	)
	run("larger", 700<<20,
		`REPORT said: /dev/vd[abc]1 holds ext4 "data": nothing to do /dev/vd[abc]1 holds xfs "more": nothing to do /dev/vd[abc]1 holds btrfs "tree": nothing to do`,
		`REPORT extended: (.*extended from 3\d\d to 6\d\d MiB){3}`,
		`REPORT sizes:( 6\d\d){3}`,
		`REPORT boots: one two, one two, one two, one two, one two`,
	)
}

// TestHotplug attaches disks to a running machine: an empty EBS volume, which the
// machine formats and mounts, and another one that goes again.
func TestHotplug(t *testing.T) {
	t.Parallel()
	disks := t.TempDir()
	for _, name := range []string{"first", "second"} {
		f, err := os.Create(filepath.Join(disks, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Truncate(64<<20), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	m := bootWith(t, build(t, "hotplug.yml"), vm.Config{NoNetwork: true, Cmdline: "nvme_core.io_timeout=4294967295", Arguments: []string{
		"-device", "pcie-root-port,id=one,chassis=1", "-device", "pcie-root-port,id=two,chassis=2",
	}})
	m.await(t, `REPORT timeout`)
	m.press(t, "drive_add 0 if=none,id=first,format=raw,file="+filepath.Join(disks, "first"))
	m.press(t, "device_add nvme,drive=first,bus=one,serial=vol0123456789abcdef0")
	m.await(t, `REPORT ready`)
	m.press(t, "drive_add 0 if=none,id=second,format=raw,file="+filepath.Join(disks, "second"))
	m.press(t, "device_add virtio-blk-pci,id=second,drive=second,bus=two,serial=second")
	m.await(t, `REPORT twice`)
	m.press(t, "device_del second")
	m.wait(t)
	const id = `by-id/nvme-QEMU_NVMe_Ctrl_vol0123456789abcdef0`
	m.says(t,
		`onboot 000-format: failed: exit 1`,
		`REPORT timeout: 4294967295`,
		`REPORT volume: `+id+` \.\./\.\./nvme0n1 `+id+`-part1 \.\./\.\./nvme0n1p1 by-label/my\\x20data \.\./\.\./nvme0n1p1 by-path/p\S+-nvme-1 \.\./\.\./nvme0n1`,
		`REPORT content: \.\./\.\./nvme0n1p1 \.\./\.\./nvme0n1p1`,
		`REPORT second: /dev/vda`,
		`REPORT again: 1`,
		`REPORT gone: 0`,
	)
}

// TestCloudConfig boots a machine with a #cloud-config, and logs in with its keys
// and with those of EC2 Instance Connect.
func TestCloudConfig(t *testing.T) {
	t.Parallel()
	alice, root := newKey(t), newKey(t)
	alice.User = "alice"
	metadata := eic.New(t)
	metadata.UserData = `#cloud-config
hostname: chosen
users:
  - name: alice
    ssh_authorized_keys: ["` + alice.Public + `"]
write_files:
  - {path: /var/lib/data/file, content: aGVsbG8K, encoding: b64, permissions: '0640'}
  - {path: /etc/passwd, content: no}
mounts: [[LABEL=data, /var/lib/data]]
runcmd: [[touch, /var/ran]]
packages: [vim]
`
	roots := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: metadata.Root.Raw})
	file := fill(t, "cloud.yml", map[string][]byte{"ROOTS": roots})
	disk := filepath.Join(t.TempDir(), "disk")
	if err := errors.Join(os.WriteFile(disk, nil, 0o644), os.Truncate(disk, 64<<20)); err != nil {
		t.Fatal(err)
	}
	m := bootWith(t, build(t, file), vm.Config{Cmdline: "linuxkit.runc_console=1", Data: []vm.Drive{{File: disk}}, MetadataHandler: metadata, BoardAsset: eic.Instance})
	m.await(t, `machine is up`)
	m.says(t,
		`onboot 002-metadata: failed: exit 1`,
		`metadata: #cloud-config: line \d+: runcmd: refused: .*`,
		`metadata: #cloud-config: line \d+: write_files\[1\]\.path: "/etc/passwd": must be a file below .*`,
		`metadata: #cloud-config: not supported, ignored: packages \(line \d+\)`,
	)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if _, err := m.WaitSSH(ctx, alice); err != nil {
		t.Fatal(err)
	}
	m.runs(t, alice, `id -un; hostname; pwd`, "alice\nchosen\n/run/home/alice\n")

	// The key of root is valid only with the signature of the signer.
	soon := time.Now().Add(time.Hour)
	metadata.Set(eic.KeysOf("root"), metadata.Sign(metadata.Intermediate, eic.Instance, soon, root.Public))
	m.rejects(t, root)
	metadata.Set(eic.KeysOf("root"), metadata.Sign(metadata.Signer, "i-0123456789abcdef1", soon, root.Public))
	m.rejects(t, root)
	metadata.Set(eic.KeysOf("root"), metadata.Sign(metadata.Signer, eic.Instance, time.Now().Add(-time.Minute), root.Public))
	m.rejects(t, root)
	metadata.Set(eic.KeysOf("root"), metadata.Sign(metadata.Signer, eic.Instance, soon, root.Public))
	m.runs(t, root, `id -un; nsenter --target 1 --mount sh -c '
		grep -c " /var/lib/data ext4 " /proc/mounts; cat /var/lib/data/file; stat -c %a /var/lib/data/file; ls /var/ran 2>&1'`,
		"root\n1\nhello\n640\nls: /var/ran: No such file or directory\n")
	print := regexp.QuoteMeta(fingerprint(t, root))
	m.says(t,
		`instance-connect: "root": signature of a key: invalid`,
		`instance-connect: "root": key `+print+`: for the instance "i-0123456789abcdef1"`,
		`instance-connect: "root": key `+print+`: expired at .*`,
		`instance-connect: "root": key `+print+` of EC2 Instance Connect, request "r-1", for IAM principal "arn:aws:iam::1:user/a"`,
	)
}

func newKey(t *testing.T) vm.Key {
	t.Helper()
	key, err := vm.NewKey(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// fingerprint returns the fingerprint of a key as ssh prints it.
func fingerprint(t *testing.T, key vm.Key) string {
	t.Helper()
	out, err := exec.Command("ssh-keygen", "-l", "-f", key.Path).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))[1]
}

// TestOffline boots the machine of examples/aws.yml without a network, without
// metadata, and with invalid metadata. It must still boot.
func TestOffline(t *testing.T) {
	t.Parallel()
	dir := build(t, "../../../examples/aws.yml")
	for name, c := range map[string]struct {
		config vm.Config
		says   []string
	}{
		"no network":  {vm.Config{NoNetwork: true}, []string{`onboot 002-metadata: failed: exit 1`, `service sshd: started in .*`}},
		"no metadata": {vm.Config{}, []string{`onboot 001-dhcpcd: done .*`, `onboot 002-metadata: failed: exit 1`}},
		"invalid metadata": {
			vm.Config{Metadata: &cloud.Instance{ID: "i-1", Hostname: "two words/..", PublicKeys: []string{"no key"}, UserData: `{"../../etc/passwd": {"content": "root"}, "`}},
			[]string{`service sshd: started in .*`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := bootWith(t, dir, c.config)
			m.await(t, `machine is up`)
			m.says(t, c.says...)
			m.press(t, "system_powerdown")
			m.wait(t)
		})
	}
}
