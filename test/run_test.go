package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/internal/testutil/need"
	"github.com/slipway-build/slipway/internal/testutil/stack"
)

// home gives slipway run its own state, and caches of builds. The cache of Go stays
// where it is, or each test would compile slipway again.
func home(t *testing.T) {
	t.Helper()
	if os.Getenv("GOCACHE") == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		t.Setenv("GOCACHE", filepath.Join(cache, "go-build"))
	}
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
}

// freePort returns a port of 127.0.0.1 that is free at the moment.
func freePort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

// mustSlipway is like slipway, and fails the test if the exit status is another one.
func mustSlipway(t *testing.T, want int, args ...string) (stdout, stderr string) {
	t.Helper()
	stdout, stderr, exit := slipway(t, "..", args...)
	if exit != want {
		t.Fatalf("slipway %s: exit %d, want %d\n%s\n%s", strings.Join(args, " "), exit, want, stdout, stderr)
	}
	return stdout, stderr
}

// TestRun runs the machine of examples/web.yml in the background with one
// command, uses it, and stops it.
func TestRun(t *testing.T) {
	stack.Require(t)
	home(t)
	port := freePort(t)
	publish := fmt.Sprintf("--publish=%d:80", port)
	stdout, stderr := mustSlipway(t, 0, "run", "--accel=tcg", "--detach", publish, "--disk=64M:data", "--wait=service=sshd", "--wait=port=80", "--wait=text=machine is up",
		"--progress=plain", "examples/web.yml")
	t.Cleanup(func() {
		if t.Failed() {
			console, _, _ := slipway(t, "..", "logs", "web")
			t.Logf("the console:\n%s", console)
		}
		slipway(t, "..", "stop", "--timeout=0", "web")
	})
	if stdout != "web\n" {
		t.Errorf("slipway run prints %q\n%s", stdout, stderr)
	}
	answer, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
	if err != nil {
		t.Fatal(err)
	}
	page, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	if err != nil || answer.StatusCode != http.StatusOK || !bytes.Contains(page, []byte("This page comes from a machine")) {
		t.Errorf("the page: %d %q, %v", answer.StatusCode, page, err)
	}
	if stdout, _ := mustSlipway(t, 7, "ssh", "--timeout=3m", "web", "nsenter --target 1 --mount cat /etc/hostname /proc/mounts; hostname; exit 7"); !strings.Contains(stdout, " /var/data ext4 rw") || !strings.HasSuffix(stdout, "web\n") {
		t.Errorf("in the machine: %q", stdout)
	}
	if stdout, _ := mustSlipway(t, 0, "ps"); !strings.Contains(stdout, "web   running") || !strings.Contains(stdout, fmt.Sprintf("127.0.0.1:%d->80", port)) {
		t.Errorf("slipway ps: %s", stdout)
	}
	if stdout, _ := mustSlipway(t, 0, "logs", "web"); !strings.Contains(stdout, "machine is up") {
		t.Errorf("slipway logs: %s", stdout)
	}
	_, stderr = mustSlipway(t, 1, "run", "--accel=tcg", publish, "--progress=quiet", "examples/web.yml")
	if want := fmt.Sprintf("slipway: cannot publish at 127.0.0.1:%d: bind: address already in use; choose another port", port); !strings.HasPrefix(stderr, want) || strings.Count(stderr, "\n") > 2 {
		t.Errorf("the same port again: %s", stderr)
	}
	mustSlipway(t, 0, "stop", "web")
	if stdout, _ := mustSlipway(t, 0, "ps"); strings.Contains(stdout, "web") {
		t.Errorf("slipway ps after stop: %s", stdout)
	}
	var all []struct {
		Name, State string
		Status      int
	}
	stdout, _ = mustSlipway(t, 0, "ps", "--all", "--json")
	if err := json.Unmarshal([]byte(stdout), &all); err != nil || len(all) != 1 || all[0].Name != "web" || all[0].State != "ended" || all[0].Status != 0 {
		t.Errorf("slipway ps --all --json: %s", stdout)
	}
}

// TestRunErrors checks that errors name the cause and a remedy in a line.
func TestRunErrors(t *testing.T) {
	home(t)
	other := filepath.Join(t.TempDir(), "notes.txt")
	if err := os.WriteFile(other, []byte("not a machine\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(t.TempDir(), "disk.raw")
	sector := make([]byte, 1<<20)
	sector[510], sector[511] = 0x55, 0xaa
	if err := os.WriteFile(disk, sector, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"run"}, 2, "requires a machine YAML, a disk"},
		{[]string{"run", other}, 1, "notes.txt: is not a machine: it must be a YAML file"},
		{[]string{"run", other + "x"}, 1, "no such file"},
		{[]string{"run", "--uefi", "--bios", disk}, 2, "exclude each other"},
		{[]string{"run", "--mem=much", disk}, 2, `--mem "much": write it as SIZE`},
		{[]string{"run", "--publish=80", disk}, 2, "write it as PORT:GUESTPORT, for example 8080:80"},
		{[]string{"run", "--wait=port=80", "--detach", disk}, 2, "port 80 is not published: add --publish 8080:80"},
		{[]string{"run", "--wait=text=x", disk}, 2, "--wait requires --detach or --ssh"},
		{[]string{"run", "--disk=x", disk}, 2, "write it as SIZE[:NAME]"},
		{[]string{"run", "--ssh", "uname -a", disk}, 2, `write its command as --ssh="uname -a"`},
		{[]string{"run", disk, "context"}, 2, "a build context belongs to a machine YAML"},
		{[]string{"run", "--builder=unix:///nonsuch", "a.yml"}, 1, "does not answer"},
		{[]string{"run", "--name=../x", disk}, 1, "is not a name for a machine"},
		{[]string{"ssh", "nonsuch"}, 1, `there is no machine "nonsuch": "slipway ps --all" lists them`},
		{[]string{"stop", "nonsuch"}, 1, `there is no machine "nonsuch"`},
		{[]string{"logs", "nonsuch"}, 1, `there is no machine "nonsuch"`},
	} {
		stdout, stderr, exit := slipway(t, "..", c.args...)
		if exit != c.status || !strings.Contains(stderr, c.want) || strings.Count(stderr, "\n") > 2 || stdout != "" {
			t.Errorf("%q: exit %d, want %d; %q, want %q", c.args, exit, c.status, stderr, c.want)
		}
	}
	t.Setenv("PATH", t.TempDir())
	if _, stderr, exit := slipway(t, "..", "run", disk); exit != 1 || !strings.Contains(stderr, "qemu-system-") || !strings.Contains(stderr, "is not installed: ") {
		t.Errorf("without QEMU: exit %d, %s", exit, stderr)
	}
}

// runMachine writes a machine without containerd that runs a script and then
// powers off with the script's status.
func runMachine(t *testing.T, script string) string {
	t.Helper()
	dir := machineYAML(t, fmt.Sprintf(`kernel:
  image: slipwaybuild/kernel:v1
  cmdline: "console=ttyAMA0 console=ttyS0"
init:
  - slipwaybuild/init:v1
  - slipwaybuild/runc:v1
onboot:
  - name: dhcpcd
    image: slipwaybuild/dhcpcd:v1
    command: ["/sbin/dhcpcd", "--nobackground", "-f", "/dhcpcd.conf", "-1"]
  - name: metadata
    image: slipwaybuild/metadata:v1
  - name: job
    image: slipwaybuild/init:v1 # does not hide /sys/firmware
    command: ["/bin/sh", "-c", %q]
    binds: ["/dev:/dev", "/sys:/sys", "/run/config:/tmp"]
    annotations: {build.slipway.batch: "true"}
`, script))
	return filepath.Join(dir, "machine.yml")
}

// TestRunHardware boots machines with the firmware and the devices that
// slipway run offers. The machines report what they find, and power off with
// their own status.
func TestRunHardware(t *testing.T) {
	if !*bootAll {
		t.Skip("boots seven machines: run make test-boot")
	}
	stack.Require(t)
	need.Program(t, "swtpm", "swtpm")
	report := runMachine(t, `{ ls -d /sys/firmware/efi /sys/class/tpm/tpm0; for d in /sys/block/vd?; do [ -e $d ] && echo disk $(cat $d/serial); done; for f in hostname ssh/authorized_keys userdata; do cat /tmp/$f; echo; done; } 2>/dev/null | sed 's/^/REPORT /'; exit 3`) // the init prints the output of a container that fails
	data := filepath.Join(t.TempDir(), "user-data")
	if err := os.WriteFile(data, []byte("written by the user\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		args    []string
		status  int
		want    []string
		without string
	}{
		{"kernel", nil, 3, []string{"REPORT hardware", "REPORT ssh-ed25519 ", "REPORT written by the user"}, "/sys/firmware/efi"},
		{"bios", []string{"--bios", "--tpm"}, 3, []string{"REPORT /sys/class/tpm/tpm0"}, "/sys/firmware/efi"},
		{"uefi", []string{"--uefi", "--disk=64M:data", "--disk=64M"}, 3, []string{"REPORT /sys/firmware/efi", "REPORT disk data", "REPORT disk disk2"}, "/sys/class/tpm/tpm0"},
		{"nocloud", []string{"--metadata=nocloud"}, 3, []string{"REPORT hardware", "REPORT ssh-ed25519 ", "REPORT written by the user"}, "/sys/firmware/efi"},
		{"arm64", []string{"--platform=linux/arm64", "--uefi", "--tpm"}, 3, []string{"REPORT /sys/firmware/efi", "REPORT /sys/class/tpm/tpm0"}, "disk"},
	} {
		t.Run(c.name, func(t *testing.T) {
			home(t)
			args := append([]string{"run", "--accel=tcg", "--progress=plain", "--name=hardware", "--user-data=" + data}, c.args...)
			stdout, stderr, exit := slipway(t, "..", append(args, report, filepath.Dir(report))...)
			if exit != c.status || strings.Contains(stdout, "REPORT "+c.without) {
				t.Errorf("exit %d, want %d\n%s\n%s", exit, c.status, stdout, stderr)
			}
			for _, want := range c.want {
				if !strings.Contains(stdout, want) {
					t.Errorf("the machine does not report %q:\n%s", want, stdout)
				}
			}
		})
	}
	t.Run("secure boot", func(t *testing.T) {
		home(t)
		_, stderr, exit := slipway(t, "..", "run", "--accel=tcg", "--progress=plain", "--secure-boot", "--detach", "--name=refused",
			"--wait=text=Access Denied|Security Violation|rejected", report, filepath.Dir(report))
		console, _, _ := slipway(t, "..", "logs", "refused")
		slipway(t, "..", "stop", "--timeout=0", "refused")
		if exit != 0 || strings.Contains(console, "Linux version") {
			t.Errorf("an unsigned disk boots under Secure Boot: exit %d, %s\n%s", exit, stderr, console)
		}
	})
}

// TestRunCommand runs a command by ssh on a disk that keeps its state, twice.
func TestRunCommand(t *testing.T) {
	if !*bootAll {
		t.Skip("boots two machines: run make test-boot")
	}
	stack.Require(t)
	home(t)
	state := filepath.Join(t.TempDir(), "state")
	for boot := range 2 {
		stdout, stderr := mustSlipway(t, 9, "run", "--accel=tcg", "--progress=plain", "--disk=64M:data", "--state="+state, "examples/web.yml", "--",
			"nsenter --target 1 --mount sh -c 'echo boot >>/var/data/boots; wc -l </var/data/boots; sync'; exit 9")
		if strings.TrimSpace(stdout) != fmt.Sprint(boot+1) {
			t.Errorf("boot %d prints %q\n%s", boot, stdout, stderr)
		}
	}
}

// A screen is the output of a command that runs.
type screen string

// await waits until the command prints a text.
func (s screen) await(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		got, err := os.ReadFile(string(s))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(got), text) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %q on the screen:\n%s", text, got)
		}
	}
}

// start starts a command in the root of the checkout. It is killed at the end of
// the test.
func start(t *testing.T, name string, args ...string) (screen, io.Writer, *exec.Cmd) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "BUILDX_BUILDER="+stack.Builder, "TERM=vt100")
	keys, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "screen"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	return screen(out.Name()), keys, cmd
}

// startSlipway starts slipway. The returned function interrupts it.
func startSlipway(t *testing.T, args ...string) (screen, func()) {
	t.Helper()
	program, err := command()
	if err != nil {
		t.Fatal(err)
	}
	s, _, cmd := start(t, program, args...)
	return s, func() {
		t.Helper()
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 130 {
			t.Errorf("interrupted: %v", err)
		}
	}
}

// TestRunTerminal uses a machine in a terminal: its console, the shell that opens
// when ssh is ready, and the menu behind ctrl-].
func TestRunTerminal(t *testing.T) {
	if !*bootAll {
		t.Skip("boots a machine: run make test-boot")
	}
	stack.Require(t)
	need.Program(t, "script", "bsdutils")
	home(t)
	program, err := command()
	if err != nil {
		t.Fatal(err)
	}
	screen, keys, cmd := start(t, "script", "--quiet", "--return", "--command", program+" run --accel=tcg --progress=plain examples/aws.yml", "/dev/null")
	await := func(text string) { t.Helper(); screen.await(t, text) }
	await("This is the console. ctrl-] opens a menu")
	await("This is a shell; exit returns to the console.")
	io.WriteString(keys, "echo shell $((6*7)); tty; exit\n")
	await("shell 42\r")
	await("\n/dev/pts/0")
	await("ctrl-] p powers the machine off")
	io.WriteString(keys, "\x1d")
	await("s: shell by ssh   p: power off   k: kill")
	io.WriteString(keys, "p")
	await("poweroff now")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
