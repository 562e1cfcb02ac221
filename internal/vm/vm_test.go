package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/slipway-build/slipway/internal/testutil/need"
)

// bootSector creates a disk whose first sector prints text on the first serial
// port. It then halts if stay is set, and powers off otherwise.
func bootSector(t *testing.T, text string, stay bool) string {
	t.Helper()
	code := []byte{
		0xfc,       // cld
		0x31, 0xc0, // xor ax, ax
		0x8e, 0xd8, // mov ds, ax
		0xbe, 0x1d, 0x7c, // mov si, text
		0xba, 0xf8, 0x03, // mov dx, 0x3f8
		0xac,       // next: lodsb
		0x84, 0xc0, // test al, al
		0x74, 0x03, // jz off
		0xee,       // out dx, al
		0xeb, 0xf8, // jmp next
		0xba, 0x04, 0x06, // off: mov dx, 0x604, the ACPI power management control register
		0xb8, 0x00, 0x20, // mov ax, 0x2000, soft off
		0xef,       // out dx, ax
		0xf4,       // halt: hlt
		0xeb, 0xfd, // jmp halt
	}
	if stay {
		code[25] = 0x90 // nop
	}
	disk := make([]byte, 1<<20)
	copy(disk, code)
	copy(disk[len(code):], text+"\x00")
	disk[510], disk[511] = 0x55, 0xaa
	file := filepath.Join(t.TempDir(), "disk,1.raw") // QEMU's options require quotes for the comma
	if err := os.WriteFile(file, disk, 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// start boots a machine for at most a minute.
func start(t *testing.T, config Config) (*Machine, context.Context) {
	t.Helper()
	need.Program(t, "qemu-system-x86_64", "qemu-system-x86")
	if config.LogDir == "" {
		config.LogDir = t.TempDir()
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	m, err := Start(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Kill)
	return m, ctx
}

func TestPowerOff(t *testing.T) {
	disk := bootSector(t, "hello from the disk\r\n", false)
	before, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	logs := t.TempDir()
	var stream bytes.Buffer
	m, ctx := start(t, Config{Disk: disk, LogDir: logs, Console: &stream})

	at, err := m.WaitConsole(ctx, regexp.MustCompile("hello from the disk"))
	if err != nil {
		t.Fatal(err)
	}
	if at <= 0 || at > m.console.now() {
		t.Errorf("the text appeared at %v", at)
	}
	if err := m.Wait(ctx); err != nil {
		t.Errorf("powered off: %v", err)
	}
	log, err := os.ReadFile(filepath.Join(logs, "console.log"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(log, []byte("hello from the disk")) || !bytes.Equal(log, stream.Bytes()) {
		t.Errorf("console.log has %q, the stream %q", log, stream.Bytes())
	}
	if after, err := os.ReadFile(disk); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the disk has changed: %v", err)
	}

	_, err = m.WaitConsole(ctx, regexp.MustCompile("never printed"))
	if !errors.Is(err, errOff) || !strings.Contains(err.Error(), filepath.Join(logs, "console.log")) {
		t.Errorf("wait for more: %v", err)
	}
	if _, err := m.WaitSSH(ctx, Key{}); !errors.Is(err, errOff) {
		t.Errorf("ssh to it: %v", err)
	}
	if tail := m.ConsoleTail(1); !strings.HasSuffix(tail, "hello from the disk") {
		t.Errorf("the last line of the console is %q", tail)
	}
}

func TestKill(t *testing.T) {
	m, ctx := start(t, Config{Disk: bootSector(t, "here\r\n", true)})
	if _, err := m.WaitConsole(ctx, regexp.MustCompile("here")); err != nil {
		t.Fatal(err)
	}
	if !listens(m.SSHAddress()) {
		t.Errorf("QEMU does not forward port %d", m.SSHPort)
	}
	m.Kill()
	if listens(m.SSHAddress()) {
		t.Errorf("QEMU still listens on port %d", m.SSHPort)
	}
	if err := m.Wait(ctx); !errors.Is(err, errKilled) {
		t.Errorf("killed: %v", err)
	}
}

// TestDeath kills a process that runs a machine. QEMU must exit.
func TestDeath(t *testing.T) {
	if disk := os.Getenv("VM_TEST_DEATH"); disk != "" {
		m, ctx := start(t, Config{Disk: disk})
		if _, err := m.WaitConsole(ctx, regexp.MustCompile("here")); err != nil {
			t.Fatal(err)
		}
		fmt.Println(m.SSHAddress())
		if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		select {}
	}
	need.Program(t, "qemu-system-x86_64", "qemu-system-x86")
	child := exec.Command(os.Args[0], "-test.run=^TestDeath$")
	child.Env = append(os.Environ(), "VM_TEST_DEATH="+bootSector(t, "here\r\n", true))
	out, err := child.Output()
	if err == nil || !strings.HasPrefix(string(out), "127.0.0.1:") {
		t.Fatalf("the child should have run a machine and died: %v: %s", err, out)
	}
	address := strings.TrimSpace(string(out))
	for deadline := time.Now().Add(10 * time.Second); listens(address); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("QEMU still listens at %s", address)
		}
	}
}

func listens(address string) bool {
	conn, err := net.Dial("tcp", address)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

func TestContextEnds(t *testing.T) {
	m, _ := start(t, Config{Disk: bootSector(t, "here\r\n", true)})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := m.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait: %v", err)
	}
	if _, err := m.WaitSSH(ctx, Key{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ssh: %v", err)
	}
	if m.over() != nil {
		t.Errorf("the machine ended with the wait: %v", m.over())
	}
}

func TestPanic(t *testing.T) {
	m, ctx := start(t, Config{Disk: bootSector(t, "[    1.2] Kernel panic - not syncing: no init\r\n", true)})
	if _, err := m.WaitConsole(ctx, regexp.MustCompile("never printed")); !errors.Is(err, errPanic) {
		t.Errorf("console: %v", err)
	}
	if _, err := m.WaitSSH(ctx, Key{}); !errors.Is(err, errPanic) {
		t.Errorf("ssh: %v", err)
	}
	if err := m.Wait(ctx); !errors.Is(err, errPanic) {
		t.Errorf("wait: %v", err)
	}
}

// TestUEFI checks by OVMF's output that it runs and tries the NVMe disk.
func TestUEFI(t *testing.T) {
	need.File(t, "/usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf")
	m, ctx := start(t, Config{Firmware: UEFI, Disk: bootSector(t, "BIOS only", true)})
	if _, err := m.WaitConsole(ctx, regexp.MustCompile(`BdsDxe: failed to load Boot\d+ "UEFI QEMU NVMe Ctrl slipway`)); err != nil {
		t.Error(err)
	}
}

func TestNothingToBoot(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.raw")
	for want, config := range map[string]Config{
		"requires a disk, a CD or a kernel": {LogDir: t.TempDir()},
		"missing.raw":                       {Disk: missing, LogDir: t.TempDir()},
		"log directory":                     {Disk: "vm_test.go"},
		`unknown firmware "u-boot"`:         {Disk: "vm_test.go", LogDir: t.TempDir(), Firmware: "u-boot"},
	} {
		if _, err := Start(t.Context(), config); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func TestNewKey(t *testing.T) {
	need.Program(t, "ssh-keygen", "openssh-client")
	dir := t.TempDir()
	key, err := NewKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("ssh-keygen", "-y", "-f", key.Path).Output(); err != nil || strings.TrimSpace(string(out)) != key.Public {
		t.Errorf("ssh-keygen reads %q from the private key, the public one is %q: %v", out, key.Public, err)
	}
	if again, err := NewKey(dir); err != nil || again != key {
		t.Errorf("the second call: %v, %v", again, err)
	}
}

func TestLastLines(t *testing.T) {
	got := lastLines("\x1b[2J\x1b[01;01Hone\r\ntwo\r\n\x1b[0;37mthree\x1b[0m\r\n\r\n", 2)
	if want := "two\nthree"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
