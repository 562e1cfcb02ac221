package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-build/slipway/internal/testutil/meminfo"
	"github.com/slipway-build/slipway/internal/testutil/stack"
	"github.com/slipway-build/slipway/internal/vm"
	"github.com/slipway-build/slipway/internal/vm/cloud"
)

// awsDisk builds the machine of examples/aws.yml with the command in its
// comments.
func awsDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	_, stderr, err := stack.Buildx("..", "-f", "examples/aws.yml", "--target", "raw", "--build-arg", "SIZE=100M", "-o", dir, ".")
	if err != nil {
		t.Fatalf("build examples/aws.yml: %v\n%s", err, stderr)
	}
	return filepath.Join(dir, "aws.raw")
}

// TestAWS publishes the machine of examples/aws.yml, boots its snapshot in both
// boot modes of EC2, and checks what the machine promises.
func TestAWS(t *testing.T) {
	stack.Require(t)
	a, file := newAccount(t), awsDisk(t)
	image := a.publish(t, file, "--name=aws")
	if image.BootMode != "uefi-preferred" || image.Architecture != "x86_64" {
		t.Errorf("the AMI is %+v", image)
	}
	t.Run("inspect", func(t *testing.T) { inspectAMI(t, a, image.Image, file) })
	t.Run("size", func(t *testing.T) { testSize(t, file) })
	disk := a.save(t, image)
	for _, firmware := range []vm.Firmware{vm.BIOS, vm.UEFI} {
		t.Run(string(firmware), func(t *testing.T) {
			t.Parallel()
			testAWS(t, vm.Config{Firmware: firmware, Disk: disk})
		})
	}
}

// testSize checks that the disk, packed at the default level, has at most 50 MB of
// data: blocks of 4096 bytes that are not zero.
func testSize(t *testing.T, file string) {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	size, zero := 0, make([]byte, 4096)
	for block := range slices.Chunk(data, len(zero)) {
		if !bytes.Equal(block, zero[:len(block)]) {
			size += len(block)
		}
	}
	if size < 40_000_000 || size > 50_000_000 {
		t.Errorf("the disk has %d bytes of data, want 40 to 50 MB", size)
	}
}

// inspectAMI checks that slipway reports the same about an AMI as about its disk.
func inspectAMI(t *testing.T, a account, id, file string) {
	for _, pair := range append(a.Env(), "PATH="+a.dir+":"+os.Getenv("PATH")) { // where slipway-publish is
		name, value, _ := strings.Cut(pair, "=")
		t.Setenv(name, value)
	}
	var reports [2]map[string]any
	for i, name := range []string{id, file} {
		stdout, _ := mustSlipway(t, 0, "inspect", "--json", name)
		if err := json.Unmarshal([]byte(stdout), &reports[i]); err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"name", "size", "files"} { // a volume has whole GiB
			delete(reports[i], key)
		}
	}
	if diff := cmp.Diff(reports[1], reports[0]); diff != "" || reports[0]["kernel"] == nil {
		t.Errorf("slipway inspect (-disk +AMI):\n%s", diff)
	}
	if stdout, _ := mustSlipway(t, 0, "inspect", "--extract", "containers/services/sshd/config.json", id); !json.Valid([]byte(stdout)) {
		t.Errorf("a file of the AMI: %q", stdout)
	}
}

// TestAWSArm64 is like TestAWS for arm64, with the console of QEMU's machine.
func TestAWSArm64(t *testing.T) {
	if !*bootAll {
		t.Skip("requires the packages for arm64: run make test-boot")
	}
	stack.Require(t)
	example, err := os.ReadFile("../examples/aws.yml")
	if err != nil {
		t.Fatal(err)
	}
	dir := machineYAML(t, strings.Replace(string(example), "console=ttyS0", vm.Consoles["arm64"], 1))
	_, stderr, err := stack.Buildx(dir, "-f", "machine.yml", "--platform=linux/arm64", "--target=raw", "--build-arg=SIZE=100M", "-o", "out", ".")
	if err != nil {
		t.Fatalf("build examples/aws.yml: %v\n%s", err, stderr)
	}
	a := newAccount(t)
	image := a.publish(t, filepath.Join(dir, "out/machine.raw"), "--name=aws")
	if image.BootMode != "uefi" || image.Architecture != "arm64" {
		t.Errorf("the AMI is %+v", image)
	}
	testAWS(t, vm.Config{Architecture: "arm64", Firmware: vm.UEFI, Disk: a.save(t, image)})
}

// testAWS boots the machine of examples/aws.yml from its disk and checks it.
func testAWS(t *testing.T, config vm.Config) {
	key, err := vm.NewKey(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	metadata := cloud.Instance{
		ID:         "i-0123456789abcdef0",
		Hostname:   "ip-169-254-0-15.eu-west-1.compute.internal",
		PublicKeys: []string{key.Public},
		UserData:   `{"app": {"entries": {"greeting": {"content": "hello from user data"}}}}`,
	}
	config.Metadata, config.LogDir = &metadata, stack.Artifacts(t)
	machine, err := vm.Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		machine.Kill()
		if t.Failed() {
			t.Logf("end of %s/console.log:\n%s", stack.Artifacts(t), machine.ConsoleTail(60))
		}
	})
	g := &guest{machine, key}

	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	kernel, err := g.WaitConsole(ctx, regexp.MustCompile("Linux version"))
	if err != nil {
		t.Fatal(err)
	}
	login, err := g.WaitSSH(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("from power-on: kernel %.1f s, ssh %.1f s", kernel.Seconds(), login.Seconds())

	t.Run("memory", func(t *testing.T) { testMemory(t, g) })
	t.Run("login", func(t *testing.T) {
		if got := g.output(t, "id -un"); got != "root" {
			t.Errorf("logged in as %q", got)
		}
	})
	t.Run("sshd", func(t *testing.T) { testSSHD(t, g) })
	t.Run("wrong key", func(t *testing.T) { testWrongKey(t, g) })
	t.Run("root filesystem", func(t *testing.T) { testRootFilesystem(t, g) })
	t.Run("metadata", func(t *testing.T) { testMetadata(t, g, metadata) })
	t.Run("sysctl", func(t *testing.T) { testSysctl(t, g) })
	t.Run("services", func(t *testing.T) { testServices(t, g) })
	t.Run("reboot", func(t *testing.T) { testReboot(t, g) })
	t.Run("poweroff", func(t *testing.T) { testPowerOff(t, g, config.Architecture == "arm64") })
}

// minAvailable is the least memory that a machine of 1 GiB has for programs after
// boot, in KiB.
const minAvailable = 750 << 10

func testMemory(t *testing.T, g *guest) {
	available := meminfo.Available(t, g.output(t, "cat /proc/meminfo"))
	t.Logf("available memory: %d MiB", available>>10)
	if available < minAvailable {
		t.Errorf("the machine has %d KiB of available memory, less than %d", available, minAvailable)
	}
}

// testSSHD checks the capabilities of a login, its terminal, and sftp.
func testSSHD(t *testing.T, g *guest) {
	status := g.output(t, "cat /proc/self/status")
	for _, line := range []string{"CapEff:\t00000000002c04e1\n", "CapBnd:\t00000000002c04e1\n", "NoNewPrivs:\t1\n", "Seccomp:\t2\n"} {
		if !strings.Contains(status, line) {
			t.Errorf("the status of a login lacks %q:\n%s", line, status)
		}
	}
	ssh := g.SSHCommand(g.key)
	terminal := exec.CommandContext(t.Context(), "sh", "-c", ssh+` -tt 'tty; ls -l $(tty)'`)
	if out, err := terminal.CombinedOutput(); err != nil || !regexp.MustCompile(`^/dev/pts/0\r\ncrw--w---- .* root +tty `).Match(out) {
		t.Errorf("ssh with a terminal: %v, %q", err, out)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	sftp := exec.CommandContext(t.Context(), "sftp", "-q", "-b", "-", "-D", ssh+" -s sftp")
	sftp.Stdin = strings.NewReader("put " + file + " /tmp/file\nget /tmp/file " + file + ".back\n")
	if out, err := sftp.CombinedOutput(); err != nil {
		t.Errorf("sftp: %v, %s", err, out)
	}
	if back, err := os.ReadFile(file + ".back"); string(back) != "content" {
		t.Errorf("sftp returned %q, %v", back, err)
	}
	if entered := g.output(t, inMachine("sh -c 'service list | grep -c ^sshd; ls -d /var/config'")); entered != "1\n/var/config" {
		t.Errorf("in the machine: %q", entered)
	}
}

func testWrongKey(t *testing.T, g *guest) {
	wrong, err := vm.NewKey(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.SSH(t.Context(), wrong, "true"); !errors.Is(err, vm.ErrRejected) {
		t.Errorf("login with another key: %v", err)
	}
	stranger := exec.CommandContext(t.Context(), "sh", "-c", g.SSHCommand(wrong)+" -o BatchMode=yes true")
	out, err := stranger.CombinedOutput()
	// The brackets contain the allowed methods. Passwords are not allowed.
	if stranger.ProcessState.ExitCode() != 255 || !strings.Contains(string(out), "Permission denied (publickey).") {
		t.Errorf("ssh with another key: %v, %s", err, out)
	}
}

func testRootFilesystem(t *testing.T, g *guest) {
	mounted := regexp.MustCompile(`(?m)^\S+ on / type \S+ \(([^)]*)\)$`)
	for name, where := range map[string]func(string) string{
		"machine":   inMachine,
		"container": func(command string) string { return command },
	} {
		mounts := g.output(t, where("mount"))
		roots := mounted.FindAllStringSubmatch(mounts, -1)
		if len(roots) == 0 {
			t.Errorf("%s: no root filesystem in the mounts:\n%s", name, mounts)
		} else if options := strings.Split(roots[len(roots)-1][1], ","); !slices.Contains(options, "ro") {
			t.Errorf("%s: the root filesystem is not read-only: %s", name, roots[len(roots)-1][0])
		}

		result := g.run(t, where("touch /written"))
		if result.Exit == 0 || !strings.Contains(result.Stderr, "Read-only file system") {
			t.Errorf("%s: touch in /: exit %d, %q", name, result.Exit, result.Stderr)
		}
	}
	if found := g.output(t, inMachine("find / -xdev -type f -perm /6000")); found != "" {
		t.Errorf("files with setuid or setgid:\n%s", found)
	}
	// A filesystem without a device has the major number 0, see
	// proc_pid_mountinfo(5).
	info := g.output(t, "cat /proc/1/mountinfo")
	if !strings.Contains(info, " / / ") {
		t.Errorf("process 1 has no root in its mounts:\n%s", info)
	}
	for line := range strings.Lines(info) {
		if device := strings.Fields(line)[2]; !strings.HasPrefix(device, "0:") {
			t.Errorf("a disk is mounted: %s", line)
		}
	}
}

func testMetadata(t *testing.T, g *guest, metadata cloud.Instance) {
	listed := strings.Fields(g.output(t, inMachine("ls -1 /var/config")))
	for _, name := range []string{"app", "hostname", "instance_id", "provider", "ssh", "userdata"} {
		if !slices.Contains(listed, name) {
			t.Errorf("/var/config lacks %s: %q", name, listed)
		}
	}
	for file, want := range map[string]string{
		"app/greeting":        "hello from user data",
		"hostname":            metadata.Hostname,
		"instance_id":         metadata.ID,
		"provider":            "AWS",
		"ssh/authorized_keys": metadata.PublicKeys[0],
		"userdata":            metadata.UserData,
	} {
		if got := g.output(t, inMachine("cat /var/config/"+file)); got != want {
			t.Errorf("%s is %q, want %q", file, got, want)
		}
	}
	if got := g.output(t, "hostname"); got != metadata.Hostname {
		t.Errorf("the host name is %q, want %q", got, metadata.Hostname)
	}
	if result := g.run(t, "ls -d /var/config"); result.Exit == 0 || !strings.Contains(result.Stderr, "No such file or directory") {
		t.Errorf("the container sees /var/config: exit %d, %q", result.Exit, result.Stderr)
	}
}

// testSysctl compares the kernel's parameters with the configuration in the
// sysctl package, see sysctl.d(5).
func testSysctl(t *testing.T, g *guest) {
	conf := g.output(t, inMachine("sh -c 'cat /containers/onboot/*-sysctl/*/etc/sysctl.d/*.conf'"))
	want := map[string]string{} // values by pattern of files
	optional := map[string]bool{}
	for line := range strings.Lines(conf) {
		key, value, ok := strings.Cut(line, "=")
		if strings.HasPrefix(line, "#") || !ok {
			continue
		}
		key, dash := strings.CutPrefix(strings.TrimSpace(key), "-")
		pattern := "/proc/sys/" + strings.ReplaceAll(key, ".", "/")
		want[pattern], optional[pattern] = strings.TrimSpace(value), dash
	}
	if len(want) < 10 {
		t.Fatalf("the sysctl package sets only %d parameters:\n%s", len(want), conf)
	}
	patterns := strings.Join(slices.Sorted(maps.Keys(want)), " ")
	values := g.output(t, "for f in "+patterns+`; do [ ! -e "$f" ] || echo $f $(cat $f); done`)
	for pattern, value := range want {
		found := false
		for line := range strings.Lines(values) {
			file, got, _ := strings.Cut(strings.TrimSpace(line), " ")
			if match, _ := path.Match(pattern, file); !match {
				continue
			}
			found = true
			if got != value {
				t.Errorf("%s is %s, want %s", file, got, value)
			}
		}
		if !found && !optional[pattern] {
			t.Errorf("the kernel has no parameter %s", pattern)
		}
	}
}

func testServices(t *testing.T, g *guest) {
	running := strings.Fields(g.output(t, "cat /proc/[0-9]*/comm"))
	for _, name := range []string{"containerd", "rngd", "sshd"} {
		if !slices.Contains(running, name) {
			t.Errorf("%s does not run: %q", name, running)
		}
	}
}

func testReboot(t *testing.T, g *guest) {
	g.run(t, inMachine("reboot")) // sshd can exit before it sends the exit status
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if _, err := g.WaitConsole(ctx, regexp.MustCompile(`(?s)Linux version.*Linux version`)); err != nil {
		t.Fatal(err)
	}
	if _, err := g.WaitSSH(ctx, g.key); err != nil {
		t.Error(err)
	}
}

// testPowerOff powers off with the power button, which EC2 uses to stop an
// instance, or with the command.
func testPowerOff(t *testing.T, g *guest, button bool) {
	if button {
		if err := g.Monitor(t.Context(), "system_powerdown"); err != nil {
			t.Fatal(err)
		}
	} else {
		g.run(t, inMachine("poweroff"))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := g.Wait(ctx); err != nil {
		t.Error(err)
	}
}
