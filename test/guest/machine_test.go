// Package guest boots machines whose only purpose is to test what runs inside
// them: the init and the programs of guest/. The machines are in testdata.
package guest

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/internal/testutil/stack"
	"github.com/slipway-build/slipway/internal/vm"
)

var architecture = flag.String("arch", "amd64", "architecture of the machines that boot; make test-boot builds the packages for arm64")

// A guest is a running machine and its log.
type guest struct {
	*vm.Machine
	log string
}

// boot boots the output of build, with additional kernel arguments.
func boot(t *testing.T, dir, args string) *guest {
	t.Helper()
	return bootWith(t, dir, vm.Config{Cmdline: args})
}

// bootWith boots the output of build with the given hardware. After a panic, the
// machine reboots at once.
func bootWith(t *testing.T, dir string, config vm.Config) *guest {
	t.Helper()
	config.Cmdline = "panic=-1 " + config.Cmdline
	return bootAs(t, dir, config)
}

// bootAs boots without kernel arguments for tests.
func bootAs(t *testing.T, dir string, config vm.Config) *guest {
	t.Helper()
	logs := stack.Artifacts(t)
	config.Kernel = filepath.Join(dir, "machine-kernel")
	config.Initrd = filepath.Join(dir, "machine-initrd.img")
	config.Cmdline = strings.TrimSpace(vm.Consoles[*architecture] + " " + config.Cmdline)
	config.Architecture = *architecture
	config.LogDir = logs
	machine, err := vm.Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		machine.Kill()
		if t.Failed() {
			t.Logf("end of %s/console.log:\n%s", logs, machine.ConsoleTail(60))
		}
	})
	return &guest{machine, filepath.Join(logs, "console.log")}
}

// wait waits until the guest has powered the machine off.
func (g *guest) wait(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if err := g.Wait(ctx); err != nil {
		t.Fatal(err)
	}
}

// await waits for text on the console that matches a pattern.
func (g *guest) await(t *testing.T, pattern string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if _, err := g.WaitConsole(ctx, regexp.MustCompile(pattern)); err != nil {
		t.Fatal(err)
	}
}

// awaitReboot waits until the machine boots again after a text.
func (g *guest) awaitReboot(t *testing.T, after string) {
	t.Helper()
	g.awaitAfter(t, after, "Linux version")
}

// awaitAfter waits for a text on the console after another one. Unlike await, it
// accepts a panic.
func (g *guest) awaitAfter(t *testing.T, after, text string) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); time.Sleep(time.Second) {
		if _, rest, ok := bytes.Cut(g.console(t), []byte(after)); ok && bytes.Contains(rest, []byte(text)) {
			return
		}
	}
	t.Fatalf("the console does not say %q after %q", text, after)
}

// runs fails the test unless a command that is run by ssh prints a text, perhaps
// followed by more.
func (g *guest) runs(t *testing.T, key vm.Key, command, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	result, err := g.SSH(ctx, key, command)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(result.Stdout, want) {
		t.Errorf("%s: exit %d, %q, want %q: %s", command, result.Exit, result.Stdout, want, result.Stderr)
	}
}

// rejects fails the test unless sshd rejects a key.
func (g *guest) rejects(t *testing.T, key vm.Key) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if result, err := g.SSH(ctx, key, "true"); !errors.Is(err, vm.ErrRejected) {
		t.Errorf("%+v, error %v, want %v", result, err, vm.ErrRejected)
	}
}

func (g *guest) press(t *testing.T, command string) {
	t.Helper()
	if err := g.Monitor(t.Context(), command); err != nil {
		t.Fatal(err)
	}
}

// typeLine types a line on the console.
func (g *guest) typeLine(t *testing.T, line string) {
	t.Helper()
	if err := g.Type(line + "\r"); err != nil {
		t.Fatal(err)
	}
}

func (g *guest) console(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile(g.log)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.ReplaceAll(text, []byte("\r"), nil)
}

// says fails the test unless the console has these lines, which are regular
// expressions without the time. It waits a little for them, because a machine
// writes its console byte by byte: the start of a line, which a test awaits, is
// there before its end.
func (g *guest) says(t *testing.T, lines ...string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for _, line := range lines {
		whole := regexp.MustCompile(`(?m)^(\[ *\d+\.\d\d\] )?` + line + ` *$`)
		for !whole.Match(g.console(t)) {
			if time.Now().After(deadline) {
				t.Errorf("the console does not say %q", line)
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// inOrder fails the test unless the console has the texts, one after another.
func (g *guest) inOrder(t *testing.T, texts ...string) {
	t.Helper()
	rest := g.console(t)
	for i, text := range texts {
		_, after, ok := bytes.Cut(rest, []byte(text))
		if !ok {
			t.Errorf("the console does not say %q after %q", text, texts[:i])
			return
		}
		rest = after
	}
}

// machineFile returns the path of a machine in testdata, or an absolute path.
func machineFile(file string) string {
	if filepath.IsAbs(file) {
		return file
	}
	return filepath.Join("testdata", file)
}

// build builds the kernel and initramfs of a machine in testdata with docker
// buildx and the local stack.
func build(t *testing.T, file string, args ...string) (dir string) {
	t.Helper()
	stack.Require(t)
	dir = t.TempDir()
	stack.MustBuildx(t, ".", append(args, "-f", machineFile(file), "--platform", "linux/"+*architecture, "--target", "kernel+initrd", "--build-arg", "NAME=machine", "-o", dir, "testdata")...)
	return dir
}
