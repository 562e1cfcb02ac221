package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/docker/go-units"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/spf13/cobra"

	"github.com/slipway-build/slipway/cmd/internal/cli"
	"github.com/slipway-build/slipway/internal/client"
	"github.com/slipway-build/slipway/internal/run"
	"github.com/slipway-build/slipway/internal/vm"
	"github.com/slipway-build/slipway/internal/vm/cloud"
	"github.com/slipway-build/slipway/publisher/artifact"
)

// runFlags are the flags of slipway run.
type runFlags struct {
	*builderFlags
	name                   string
	bios, uefi, secureBoot bool
	microVM                bool
	keys                   string
	memory                 string
	cpus                   int
	disks                  []string
	state                  string
	publish                []string
	tpm                    bool
	accelerator            string
	metadata               string
	hostname               string
	sshKeys                []string
	userData               string
	ssh                    string
	wait                   []string
	timeout                time.Duration
	detach                 bool
	watch                  bool

	command string // for ssh: of --ssh, or after --
}

// shell is the value of --ssh without a command.
const shell = "shell"

func newRunCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run [flags] YAML|DISK|FOLDER|IMAGE [CONTEXT] [-- COMMAND…]",
		Short: "Build a machine if necessary and boot it in QEMU",
		Long: "Build a machine if necessary and boot it in QEMU. The console is in the terminal: ctrl-] opens a menu.\n" +
			"When the machine accepts logins by ssh, a shell opens.",
		Example: `  slipway run aws.yml
  slipway run oci://registry.example.com/machines/aws:v1
  slipway run --publish 8080:80 web.yml
  slipway run --uefi --disk 10G:data --state web.state out/web.raw
  slipway run --microvm micro.yml
  slipway run --ssh aws.yml -- uname -a
  slipway run --detach --wait port=80 --publish 8080:80 web.yml`,
	}
	f := &runFlags{builderFlags: newBuilderFlags(cmd)}
	flags := cmd.Flags()
	flags.StringVar(&f.Target, "format", "", "`name` of the format to build (default: kernel+initrd; with firmware and for arm64: raw; with --microvm: microvm)")
	flags.StringArrayVar(&f.Secrets, "secret", nil, "secret for the machine: `id=ID,src=FILE` or id=ID,env=NAME")
	secureBootVar(cmd, f.builderFlags)
	flags.StringVar(&f.name, "name", "", "`name` for slipway ps, ssh, logs and stop (default: that of the file)")
	flags.BoolVar(&f.bios, "bios", false, "boot with BIOS")
	flags.BoolVar(&f.uefi, "uefi", false, "boot with UEFI")
	flags.BoolVar(&f.secureBoot, "secure-boot", false, "boot with UEFI and Secure Boot, which trusts Microsoft's keys")
	flags.BoolVar(&f.microVM, "microvm", false, "boot the kernel in a microVM: no firmware and no PCI, devices on MMIO")
	flags.StringVar(&f.keys, "keys", "", "with --secure-boot: `folder` of slipway keys new, whose keys the firmware trusts instead of Microsoft's")
	flags.StringVar(&f.memory, "mem", "1G", "`size` of the memory")
	flags.IntVar(&f.cpus, "cpus", 1, "`number` of processors")
	flags.StringArrayVar(&f.disks, "disk", nil, "add a disk: `SIZE[:NAME]`; may be repeated")
	flags.StringVar(&f.state, "state", "", "`folder` that keeps disks, the ssh key, UEFI's variables and the TPM between runs")
	flags.StringArrayVarP(&f.publish, "publish", "p", nil, "make a port of the machine available: `[ADDRESS:]PORT:GUESTPORT[/udp]`; may be repeated")
	flags.BoolVar(&f.tpm, "tpm", false, "add a TPM 2.0")
	flags.StringVar(&f.accelerator, "accel", "auto", "`accelerator` of QEMU: kvm, hvf, tcg (emulation) or auto")
	flags.StringVar(&f.metadata, "metadata", "ec2", "how the machine gets its metadata: `ec2`, nocloud or none")
	flags.StringVar(&f.hostname, "hostname", "", "host `name` in the metadata (default: the machine's name)")
	flags.StringArrayVar(&f.sshKeys, "ssh-key", nil, "`file` with public keys for the metadata, beside the one that is made for this run; may be repeated")
	flags.StringVar(&f.userData, "user-data", "", "`file` with user data for the metadata")
	flags.StringVar(&f.ssh, "ssh", "", "log in when the machine is ready, run a `command` or a shell, and power off")
	flags.Lookup("ssh").NoOptDefVal = shell
	flags.StringArrayVar(&f.wait, "wait", nil, "with --detach or --ssh, wait until `service=NAME`, port=NUMBER or text=REGEXP; may be repeated")
	flags.DurationVar(&f.timeout, "timeout", 5*time.Minute, "how long --wait and --ssh wait")
	flags.BoolVar(&f.watch, "watch", false, "build and boot again whenever the YAML or a file that it uses changes")
	flags.BoolVarP(&f.detach, "detach", "d", false, "run in the background")
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if at := cmd.ArgsLenAtDash(); at >= 0 {
			args = args[:at]
		}
		if len(args) == 0 || len(args) > 2 {
			return cli.Usagef("requires a machine YAML, a disk, an ISO, a UKI or the folder of a build; a command for ssh comes after --")
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) }
	return cmd
}

func (f *runFlags) run(cmd *cobra.Command, args []string) error {
	if at := cmd.ArgsLenAtDash(); at >= 0 {
		args, f.command = args[:at], strings.Join(args[at:], " ")
		f.ssh = cmp.Or(f.ssh, shell)
	}
	if f.ssh != "" && f.ssh != shell {
		f.command = f.ssh
	}
	machine, conditions, err := f.parse()
	if err != nil {
		return cli.Usagef("%w", err)
	}
	if err := machine.Missing(); err != nil {
		return err
	}
	store, err := run.OpenStore()
	if err != nil {
		return err
	}
	if f.watch {
		w := watcher{cmd: cmd, flags: f, args: args, store: store, hardware: machine, terminal: run.NewTerminal()}
		return w.watch()
	}
	source, err := f.open(cmd, args)
	if err != nil {
		return err
	}
	entry, err := f.create(cmd, args[0], store, machine, source)
	if err != nil {
		return err
	}
	r := runner{cmd, f, store, entry, conditions}
	if f.detach {
		return r.background()
	}
	return r.foreground()
}

// create creates the folder and the record of a machine with this hardware.
func (f *runFlags) create(cmd *cobra.Command, path string, store run.Store, hardware vm.Config, source run.Source) (*run.Entry, error) {
	entry, err := store.Create(cmp.Or(f.name, source.Name), f.name != "")
	if err != nil {
		return nil, err
	}
	entry.Source, entry.Config = path, hardware
	if err := f.prepare(cmd, source, entry); err != nil {
		return nil, errors.Join(err, entry.Remove())
	}
	return entry, nil
}

// parse parses the values of flags that describe the hardware.
func (f *runFlags) parse() (c vm.Config, conditions []run.Condition, err error) {
	c.CPUs = f.cpus
	memory, err := units.RAMInBytes(f.memory)
	if err != nil || memory < 64<<20 {
		return c, nil, fmt.Errorf("--mem %q: write it as SIZE, for example 2G", f.memory)
	}
	c.Memory = int(memory >> 20)
	chosen := 0
	for firmware, on := range map[vm.Firmware]bool{vm.BIOS: f.bios, vm.UEFI: f.uefi, vm.SecureBoot: f.secureBoot} {
		if on {
			c.Firmware = firmware
			chosen++
		}
	}
	if chosen > 1 {
		return c, nil, errors.New("--bios, --uefi and --secure-boot exclude each other")
	}
	if c.MicroVM = f.microVM; f.microVM && (chosen > 0 || f.tpm) {
		return c, nil, errors.New("--microvm: a microVM has neither firmware nor a TPM")
	}
	if f.keys != "" {
		if !f.secureBoot {
			return c, nil, errors.New("--keys requires --secure-boot")
		}
		c.Firmware = vm.OwnKeys
		if c.Keys, err = filepath.Abs(f.keys); err != nil {
			return c, nil, fmt.Errorf("--keys: %w", err)
		}
	}
	if len(f.Platforms) > 1 {
		return c, nil, errors.New("--platform: a machine has one platform")
	}
	for _, name := range f.Platforms {
		p, err := platforms.Parse(name)
		if err != nil {
			return c, nil, fmt.Errorf("--platform: %w", err)
		}
		c.Architecture = p.Architecture
	}
	for _, text := range f.publish {
		forward, err := run.ParseForward(text)
		if err != nil {
			return c, nil, fmt.Errorf("--publish %w", err)
		}
		c.Forwards = append(c.Forwards, forward)
	}
	for _, text := range f.wait {
		condition, err := run.ParseCondition(text)
		if err == nil {
			err = condition.Check(c)
		}
		if err != nil {
			return c, nil, fmt.Errorf("--wait %w", err)
		}
		conditions = append(conditions, condition)
	}
	switch {
	case len(f.wait) > 0 && !f.detach && f.ssh == "":
		return c, nil, errors.New("--wait requires --detach or --ssh")
	case f.metadata != "ec2" && f.metadata != "nocloud" && f.metadata != "none":
		return c, nil, fmt.Errorf("--metadata %q: must be ec2, nocloud or none", f.metadata)
	}
	if f.tpm {
		c.TPM = "tpm" // in the folder of the machine
	}
	return c, conditions, nil
}

// open returns what boots, which it builds from a machine YAML.
func (f *runFlags) open(cmd *cobra.Command, args []string) (run.Source, error) {
	if !run.IsYAML(args[0]) {
		if len(args) > 1 {
			if f.ssh == shell {
				return run.Source{}, cli.Usagef("--ssh: write its command as --ssh=%q", args[0])
			}
			return run.Source{}, cli.Usagef("a build context belongs to a machine YAML, not to %q", args[0])
		}
		if artifact.IsReference(args[0]) {
			return f.pull(cmd, args[0])
		}
		return run.Open(args[0])
	}
	remove, err := readStdin(cmd, args)
	if err != nil {
		return run.Source{}, err
	}
	defer remove()
	return f.build(cmd, args)
}

// build builds the machine in a folder of the user's cache, where a build that
// changes nothing finds its files.
func (f *runFlags) build(cmd *cobra.Command, args []string) (run.Source, error) {
	if len(f.Platforms) == 0 {
		f.Platforms = []string{"linux/" + runtime.GOARCH}
	}
	platform, err := platforms.Parse(f.Platforms[0])
	if err != nil {
		return run.Source{}, fmt.Errorf("--platform: %w", err)
	}
	if f.Target == "" {
		switch {
		case f.microVM:
			f.Target = "microvm"
		// Without UEFI, QEMU's arm64 machine has no ACPI, and so no power button.
		case f.bios || f.uefi || f.secureBoot || platform.Architecture == "arm64":
			f.Target = "raw"
		default:
			f.Target = "kernel+initrd"
		}
	}
	path, err := filepath.Abs(args[0])
	if err != nil {
		return run.Source{}, err
	}
	folder, err := cacheFolder(path, f.Target, f.Platforms[0])
	if err != nil {
		return run.Source{}, err
	}
	f.Outputs = []string{folder}
	b, progress, err := f.connect(cmd, args)
	if err != nil {
		return run.Source{}, err
	}
	defer b.Close()
	files, err := client.Build(cmd.Context(), b, f.Options, progress)
	if err := f.explain(cmd, progress, err); err != nil {
		return run.Source{}, err
	}
	var paths []string
	for _, file := range files {
		paths = append(paths, file.Path)
	}
	source, err := run.OpenBuilt(paths)
	source.Name = strings.TrimSuffix(filepath.Base(args[0]), filepath.Ext(args[0]))
	return source, err
}

// cacheFolder returns the folder of the user's cache for what a key identifies.
func cacheFolder(key ...string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("folder for the machine: %w", err)
	}
	id := sha256.Sum256([]byte(strings.Join(key, "\n")))
	return filepath.Join(cache, "slipway", "run", fmt.Sprintf("%x", id[:8])), nil
}

// pull saves a disk of a registry in a folder of the user's cache.
func (f *runFlags) pull(cmd *cobra.Command, image string) (run.Source, error) {
	ref, err := artifact.ParseReference(image)
	if err != nil {
		return run.Source{}, cli.Usagef("%w", err)
	}
	choice := artifact.Choice{Format: f.Target}
	for _, name := range f.Platforms {
		_, choice.Architecture, _ = strings.Cut(name, "/")
	}
	folder, err := cacheFolder(image, f.Target, choice.Architecture)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(folder), 0o755)
	}
	if err != nil {
		return run.Source{}, err
	}
	path, _, err := save(cmd, ref, choice, folder)
	if err != nil {
		return run.Source{}, err
	}
	return run.Open(path)
}

// prepare completes the record of a machine with what its folder holds.
func (f *runFlags) prepare(cmd *cobra.Command, source run.Source, entry *run.Entry) (err error) {
	c := &entry.Config
	if err := run.CheckFree(c.Forwards); err != nil {
		return err
	}
	if err := source.Configure(c, entry.Dir); err != nil {
		return err
	}
	if f.state != "" {
		if err := entry.UseState(f.state); err != nil {
			return err
		}
	}
	if c.Firmware == vm.OwnKeys || f.state != "" && (c.Firmware == vm.UEFI || c.Firmware == vm.SecureBoot) {
		c.Variables = filepath.Join(entry.Keep(), "uefi-variables.fd")
	}
	if c.TPM != "" {
		c.TPM = filepath.Join(entry.Keep(), c.TPM)
	}
	for i, text := range f.disks {
		disk, err := run.ParseDisk(text)
		if err != nil {
			return cli.Usagef("--disk %w", err)
		}
		drive, err := disk.Create(entry.Keep(), i+1)
		if err != nil {
			return err
		}
		c.Data = append(c.Data, drive)
	}
	if entry.Key, err = vm.NewKey(entry.Keep()); err != nil {
		return err
	}
	if err := f.describe(entry); err != nil {
		return err
	}
	if c.Accelerator = vm.Accelerator(f.accelerator); f.accelerator == "auto" {
		var why error
		if c.Accelerator, why = vm.FindAccelerator(cmd.Context(), c.Architecture); why != nil && f.progress != string(progressui.QuietMode) {
			fmt.Fprintf(cmd.ErrOrStderr(), "slipway: QEMU emulates the processor, which is slow: %v\n", why)
		}
	}
	return cmd.Context().Err()
}

// describe adds the metadata to the configuration of a machine.
func (f *runFlags) describe(entry *run.Entry) error {
	if f.metadata == "none" {
		return nil
	}
	instance := &cloud.Instance{ID: "i-0123456789abcdef0", Hostname: cmp.Or(f.hostname, entry.Name)}
	for _, file := range f.sshKeys {
		keys, err := run.ReadPublicKeys(file)
		if err != nil {
			return err
		}
		instance.PublicKeys = append(instance.PublicKeys, keys...)
	}
	instance.PublicKeys = append(instance.PublicKeys, entry.Key.Public)
	if f.userData != "" {
		data, err := os.ReadFile(f.userData)
		if err != nil {
			return fmt.Errorf("--user-data: %w", err)
		}
		instance.UserData = string(data)
	}
	if f.metadata == "ec2" {
		entry.Config.Metadata = instance
		return nil
	}
	path := filepath.Join(entry.Dir, cloud.NoCloudLabel+".iso")
	volume, err := os.Create(path)
	if err != nil {
		return err
	}
	entry.Config.Data = append(entry.Config.Data, vm.Drive{File: path, Serial: cloud.NoCloudLabel})
	return errors.Join(instance.WriteNoCloud(volume), volume.Close())
}

// A runner runs a machine that is ready to boot.
type runner struct {
	cmd        *cobra.Command
	flags      *runFlags
	store      run.Store
	entry      *run.Entry
	conditions []run.Condition
}

// say prints a line for the user.
func (r runner) say(format string, args ...any) {
	if r.flags.progress != string(progressui.QuietMode) {
		fmt.Fprintf(r.cmd.ErrOrStderr(), "slipway: "+format+"\n", args...)
	}
}

// foreground runs the machine in this process, until it ends or the command of
// --ssh does.
func (r runner) foreground() error {
	ctx, terminal := r.cmd.Context(), run.NewTerminal()
	if r.flags.ssh == "" {
		r.entry.Config.Console = terminal
	}
	session, err := run.Start(ctx, r.entry)
	if err != nil {
		return errors.Join(err, r.entry.Remove())
	}
	for _, p := range r.entry.Config.Forwards {
		r.say("port %d of the machine is at %s:%d", p.GuestPort, p.Address, p.Port)
	}
	status := 0
	if r.flags.ssh == "" {
		err = terminal.Console(ctx, session)
	} else if status, err = r.login(ctx); err == nil {
		err = session.PowerOff(ctx)
	}
	session.Kill()
	failed := err
	if ctx.Err() != nil { // an interrupted machine has not failed
		failed = nil
	}
	if status == 0 {
		status = session.ExitStatus()
	}
	if err := errors.Join(err, session.Close(failed, false)); err != nil {
		return err
	}
	return exitStatus(status)
}

// login waits for the machine and runs the command of --ssh.
func (r runner) login(ctx context.Context) (int, error) {
	began := time.Now()
	record, err := r.await(ctx)
	if err != nil {
		return 0, err
	}
	r.say("%s accepts ssh after %.1f s", r.entry.Name, time.Since(began).Seconds())
	return run.SSH(ctx, record, r.flags.command)
}

// await waits for the conditions of --wait, and for ssh if --ssh is set.
func (r runner) await(ctx context.Context) (record run.Record, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.flags.timeout, fmt.Errorf("not within %v", r.flags.timeout))
	defer cancel()
	if err := r.store.Wait(ctx, r.entry.Name, r.conditions); err != nil {
		return record, err
	}
	if r.flags.ssh == "" {
		return r.store.Find(r.entry.Name)
	}
	return r.store.WaitSSH(ctx, r.entry.Name)
}

// background starts a process that runs the machine.
func (r runner) background() error {
	ctx := r.cmd.Context()
	program, err := os.Executable()
	if err != nil {
		return err
	}
	if err := r.store.Detach(ctx, r.entry, program, superviseCommand); err != nil {
		return err
	}
	fmt.Fprintln(r.cmd.OutOrStdout(), r.entry.Name)
	r.say("%s runs in the background: slipway ssh, logs and stop %s", r.entry.Name, r.entry.Name)
	record, err := r.await(ctx)
	if err != nil {
		return err
	}
	if r.flags.ssh == "" {
		return nil
	}
	status, err := run.SSH(ctx, record, r.flags.command)
	if err != nil {
		return err
	}
	return exitStatus(status)
}

// exitStatus returns the error that ends the program with a status.
func exitStatus(status int) error {
	if status == 0 {
		return nil
	}
	return cli.ExitStatus(status)
}

// superviseCommand is the command of the process that Detach starts.
const superviseCommand = "supervise"

func newSuperviseCommand() *cobra.Command {
	return &cobra.Command{
		Use: superviseCommand + " NAME", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := run.OpenStore()
			if err != nil {
				return err
			}
			return store.Supervise(cmd.Context(), args[0])
		},
	}
}
