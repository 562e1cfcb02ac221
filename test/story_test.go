package test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/stack"
)

// TestLinuxKitStory does what docs/tutorials/linuxkit-on-aws.md tells: it builds
// the machine, publishes it, boots the published bytes, and runs the page's
// commands in the machine.
func TestLinuxKitStory(t *testing.T) {
	if !*bootAll {
		t.Skip("boots a machine: run make test-boot")
	}
	stack.Require(t)
	home(t)
	page, err := os.ReadFile("../docs/tutorials/linuxkit-on-aws.md")
	if err != nil {
		t.Fatal(err)
	}
	var commands []string
	for _, block := range regexp.MustCompile("(?s)<!-- not tested: TestLinuxKitStory runs it in the machine -->\n```sh\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		commands = append(commands, block[1])
	}
	if len(commands) != 3 {
		t.Fatalf("the page has %d blocks for the machine, want 3", len(commands))
	}
	// The variables that the page passes to Terraform.
	variables, err := os.ReadFile("../examples/aws/terraform/variables.tf")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range regexp.MustCompile(`-var ["']?(\w+)=`).FindAllStringSubmatch(string(page), -1) {
		if !strings.Contains(string(variables), `variable "`+name[1]+`"`) {
			t.Errorf("Terraform has no variable %s", name[1])
		}
	}

	out := t.TempDir()
	mustSlipway(t, 0, "build", "--progress=plain", "--format", "raw", "--size", "100M", "-o", out, "examples/aws.yml")
	a := newAccount(t)
	disk := a.save(t, a.publish(t, filepath.Join(out, "aws.raw"), "--name=linuxkit-story"))
	// echo ends the lines of values that have no newline.
	stdout, _ := mustSlipway(t, 0, "run", "--accel=tcg", "--progress=quiet", "--uefi", "--name=story", disk, "--", "exec 2>&1; "+strings.Join(commands, "\necho\n")+"\ntrue")
	for _, want := range []string{
		"ls: /var/config: No such file or directory\n",
		"\nhostname\n", "\ninstance_id\n", "\nprovider\n", "\nssh\n",
		"i-0123456789abcdef0",
		"touch: /file: Read-only file system\n",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("the commands do not print %q:\n%s", want, stdout)
		}
	}
	if !regexp.MustCompile(`(?m)^rootfs on / type \w+ \(ro\b`).MatchString(stdout) {
		t.Errorf("the root filesystem is not the initramfs, read-only:\n%s", stdout)
	}
	if strings.Contains(stdout, "/dev/nvme") {
		t.Errorf("a disk is mounted:\n%s", stdout)
	}
}

// TestRunWatch changes the YAML of a machine that runs.
func TestRunWatch(t *testing.T) {
	if !*bootAll {
		t.Skip("boots two machines: run make test-boot")
	}
	stack.Require(t)
	home(t)
	text, err := os.ReadFile("../examples/aws.yml")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "watched.yml")
	write := func(more string) {
		changed := strings.Replace(string(text), "\nfiles:\n", "\nfiles:\n"+more, 1)
		if err := os.WriteFile(file, []byte(changed), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	screen, stop := startSlipway(t, "run", "--accel=tcg", "--progress=plain", "--watch", file, filepath.Dir(file))
	screen.await(t, "machine is up")
	write("  - {path: etc/change, contents: two, mode: \"0644\"\n")
	screen.await(t, "watched.yml has changed")
	screen.await(t, "slipway: ")
	if stdout, _ := mustSlipway(t, 0, "ps"); !strings.Contains(stdout, "watched  running") {
		t.Errorf("the machine does not run after an error in the YAML: %s", stdout)
	}
	write("  - {path: etc/change, contents: two, mode: \"0644\"}\n")
	screen.await(t, "s after the file was saved")
	text, err = os.ReadFile(string(screen))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", regexp.MustCompile(`ssh [\d.]+ s after the file was saved`).Find(text))
	if stdout, _ := mustSlipway(t, 0, "ssh", "watched", "nsenter --target 1 --mount cat /etc/change"); stdout != "two" {
		t.Errorf("the changed machine has %q", stdout)
	}
	stop()
	if stdout, _ := mustSlipway(t, 0, "ps", "--all"); strings.Contains(stdout, "watched") {
		t.Errorf("after an interrupt: %s", stdout)
	}
}
