// Command demo builds the machine in examples/aws.yml with docker buildx,
// publishes it to a fake of AWS, boots the published snapshot in QEMU, logs in
// by SSH with the key from the fake instance metadata service, and prints sizes
// and times.
//
// It requires the local stack and the project's images: run "make demo".
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/slipway-build/slipway/internal/testutil/stack"
	"github.com/slipway-build/slipway/internal/vm"
	"github.com/slipway-build/slipway/internal/vm/cloud"
	"github.com/slipway-build/slipway/publisher/awstest"
)

const (
	disk     = "out/aws.raw"
	initrd   = "out/aws-initrd.img"
	logs     = "out/demo" // also holds the SSH key and the compiled programs
	readBack = "out/demo/snapshot.raw"
)

func main() {
	firmware := flag.String("firmware", string(vm.UEFI), "`firmware` that boots the disk: bios or uefi")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	root, err := stack.Root()
	if err == nil {
		err = os.Chdir(root)
	}
	if err == nil {
		err = demo(ctx, vm.Firmware(*firmware))
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		os.Exit(1)
	}
}

// demo builds, publishes, boots and measures.
func demo(ctx context.Context, firmware vm.Firmware) error {
	programs := exec.CommandContext(ctx, "go", "build", "-o", logs+"/", "./cmd/slipway-publish", "./hack/awsfake")
	if out, err := programs.CombinedOutput(); err != nil {
		return fmt.Errorf("compile the publisher: %w\n%s", err, out)
	}
	begin := time.Now()
	if err := build(ctx, "raw", false); err != nil {
		return err
	}
	built := time.Since(begin)
	if err := build(ctx, "kernel+initrd", true); err != nil { // mostly from the cache, for the size of the initrd
		return err
	}
	published, err := publish(ctx)
	if err != nil {
		return err
	}

	fmt.Printf("\nBooting %s, the contents of the snapshot, in QEMU without acceleration, with %s. Console log: %s\n",
		readBack, firmware, filepath.Join(logs, "console.log"))
	machine, key, err := start(ctx, vm.Config{Firmware: firmware, Disk: readBack})
	if err != nil {
		return err
	}
	defer machine.Kill()
	figures, err := use(ctx, machine, key)
	if err != nil {
		fmt.Fprintf(os.Stderr, "\n%s\n\n", machine.ConsoleTail(40))
		return err
	}
	initrdSize, _, err := measure(initrd)
	if err != nil {
		return err
	}
	diskSize, data, err := measure(disk)
	if err != nil {
		return err
	}
	fmt.Printf(`
initrd              %6.1f MB  %s
disk                %6.1f MB  %s, of which %.1f MB are data
build               %6.1f s
publish             %6.1f s
power-on to kernel  %6.1f s
power-on to ssh     %6.1f s
power off           %6.1f s

To boot the disk again and log in:

    go run ./cmd/slipway run --uefi %s

To publish it to your AWS account (docs/tutorials/first-ami.md):

    go run ./cmd/slipway-publish aws --name aws %s
`, megabytes(initrdSize), initrd, megabytes(diskSize), disk, megabytes(data), built.Seconds(), published.Seconds(),
		figures.kernel.Seconds(), figures.login.Seconds(), figures.off.Seconds(), disk, disk)
	return nil
}

// build builds a format of the example machine in out/.
func build(ctx context.Context, target string, quiet bool) error {
	args := []string{"buildx", "build", "-f", "examples/aws.yml", "--target", target, "--build-arg", "SIZE=100M", "-o", "out", "."}
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Env = append(os.Environ(), "BUILDX_BUILDER="+cmp.Or(os.Getenv("BUILDX_BUILDER"), "slipway"))
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if !quiet {
		fmt.Printf("$ docker %s\n", strings.Join(args, " "))
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build %s: %w; if the stack is not running or images are missing, run make images\n%s", target, err, log.String())
	}
	return nil
}

// publish publishes the disk to a new hack/awsfake and saves the snapshot.
func publish(ctx context.Context) (took time.Duration, err error) {
	ctx, cancel := context.WithCancel(ctx)
	fake := exec.CommandContext(ctx, filepath.Join(logs, "awsfake"), "-listen", "127.0.0.1:0")
	fake.Stderr = os.Stderr
	environment, err := fake.StdoutPipe()
	if err == nil {
		err = fake.Start()
	}
	if err != nil {
		cancel()
		return 0, err
	}
	defer func() { cancel(); _ = fake.Wait() }()
	line, err := bufio.NewReader(environment).ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("start awsfake: %w", err)
	}
	_, url, _ := strings.Cut(strings.TrimSpace(line), "=") // export AWS_ENDPOINT_URL=http://127.0.0.1:PORT

	state, err := filepath.Abs(logs)
	if err != nil {
		return 0, err
	}
	args := []string{"aws", "--name", "aws", "--endpoint-url", url, disk}
	fmt.Printf("\n$ slipway-publish %s\n", strings.Join(args, " "))
	cmd := exec.CommandContext(ctx, filepath.Join(logs, "slipway-publish"), args...)
	cmd.Env = append(append(os.Environ(), awstest.Env(url)...), "XDG_STATE_HOME="+state)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	var result bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.MultiWriter(os.Stdout, &result), os.Stderr
	begin := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("publish %s: %w", disk, err)
	}
	took = time.Since(begin)

	snapshot := regexp.MustCompile(`snap-[0-9a-f]+`).FindString(result.String())
	args = []string{"-save", snapshot, "-listen", strings.TrimPrefix(url, "http://"), "-o", readBack}
	fmt.Printf("\n$ awsfake %s\n", strings.Join(args, " "))
	if out, err := exec.CommandContext(ctx, fake.Path, args...).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("read %s back: %w\n%s", snapshot, err, out)
	}
	return took, nil
}

// start boots a disk with the metadata of an EC2 instance.
func start(ctx context.Context, config vm.Config) (*vm.Machine, vm.Key, error) {
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return nil, vm.Key{}, err
	}
	key, err := vm.NewKey(logs)
	if err != nil {
		return nil, vm.Key{}, err
	}
	config.LogDir = logs
	config.Metadata = &cloud.Instance{
		ID:         "i-0123456789abcdef0",
		Hostname:   "ip-169-254-0-15.ec2.internal",
		PublicKeys: []string{key.Public},
	}
	machine, err := vm.Start(ctx, config)
	return machine, key, err
}

// figures are times: from power-on to the kernel and to a login, and of
// powering off.
type figures struct{ kernel, login, off time.Duration }

// use waits for the machine, logs in and powers it off.
func use(ctx context.Context, machine *vm.Machine, key vm.Key) (f figures, err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	if f.kernel, err = machine.WaitConsole(ctx, regexp.MustCompile("Linux version")); err != nil {
		return f, err
	}
	if f.login, err = machine.WaitSSH(ctx, key); err != nil {
		return f, err
	}
	if err := session(ctx, machine, key); err != nil {
		return f, err
	}
	begin := time.Now()
	if _, err := machine.SSH(ctx, key, "nsenter --target 1 --mount poweroff"); err != nil {
		return f, err
	}
	err = machine.Wait(ctx)
	f.off = time.Since(begin)
	return f, err
}

// session prints a login session, and fails if a command has an unexpected
// result.
func session(ctx context.Context, machine *vm.Machine, key vm.Key) error {
	fmt.Printf("\n$ ssh -i %s -p %d root@127.0.0.1\n", key.Path, machine.SSHPort)
	for _, step := range []struct {
		command string
		refused bool
	}{
		{command: "uname -a"},
		{command: "mount | grep ' / '"},
		{command: "touch /file", refused: true},
		{command: "ls /var/config", refused: true},
		{command: "nsenter --target 1 --mount ls -1 /var/config"},
		{command: "sysctl net.ipv4.tcp_syncookies kernel.kptr_restrict fs.protected_symlinks"},
		{command: `ps -o pid,args | grep -v '^ *[0-9]* \['`}, // without kernel threads
	} {
		result, err := machine.SSH(ctx, key, step.command)
		if err != nil {
			return err
		}
		fmt.Printf("# %s\n%s%s", step.command, result.Stdout, result.Stderr)
		if refused := result.Exit != 0; refused != step.refused {
			return fmt.Errorf("%q on the machine exited with status %d, see %s", step.command, result.Exit, filepath.Join(logs, "console.log"))
		}
	}
	return nil
}

// measure returns the size of a file in bytes, and the size of its blocks of 4
// KiB that are not zero.
func measure(name string) (size, data int64, err error) {
	file, err := os.Open(name)
	if err != nil {
		return 0, 0, err
	}
	defer file.Close()
	reader := bufio.NewReaderSize(file, 1<<20)
	block, zero := make([]byte, 4096), make([]byte, 4096)
	for {
		n, err := io.ReadFull(reader, block)
		size += int64(n)
		if !bytes.Equal(block[:n], zero[:n]) {
			data += int64(n)
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return size, data, nil
		case err != nil:
			return 0, 0, fmt.Errorf("measure %s: %w", name, err)
		}
	}
}

func megabytes(bytes int64) float64 { return float64(bytes) / 1e6 }
