package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/kernel/cmdline"
)

// machine is what runs.
type machine struct {
	out      *console
	times    *timeline
	family   *family
	requests chan powerState
	args     []cmdline.Arg // of the kernel
	runc     *runc

	containerd      *daemon // nil if there is none
	containerdPlace string  // where it was started
	mu              sync.Mutex
	services        []*service
}

// runMachine is process 1: it starts the machine, waits until somebody asks it to stop, and stops it.
func runMachine() {
	requests := make(chan powerState, 1)
	listenForPower(requests)
	m := &machine{out: &console{out: []io.Writer{os.Stdout}}, times: &timeline{}, family: newFamily(), requests: requests}
	ctx, stop := context.WithCancel(context.Background())
	started := make(chan struct{})
	go func() {
		defer close(started)
		m.start(ctx)
	}()
	state := <-requests
	m.out.say("%s", state.name)
	stop()
	select {
	case <-started:
	case <-time.After(10 * time.Second):
		m.out.say("start does not end, stop anyway")
	}
	m.stop()
	m.out.say("%s now", state.name)
	m.out.drain()
	unix.Sync()
	err := unix.Reboot(state.command)
	m.out.say("%s: %v", state.name, err)
	select {} // the end of process 1 would be a panic of the kernel
}

// start brings the machine up. What fails is told, and does not keep the rest from being tried: a machine that is half there can be looked into.
func (m *machine) start(ctx context.Context) {
	told := func(err error) {
		if err != nil {
			m.out.say("%v", err)
		}
	}
	container := inContainer()
	if container {
		origin = sinceBoot()
	} else {
		m.times.add("kernel", 0, sinceBoot())
	}
	over := m.times.begin("filesystems")
	unix.Umask(0o022)
	rootErr := setRoot()
	var kernelErr error
	if !container {
		kernelErr = mountKernel()
		openConsole()
	}
	m.out.say("slipway init")
	told(rootErr)
	told(kernelErr)
	told(restoreXattrs("/" + contract.XattrsDir))
	told(mountWritable())
	if !container {
		told(fillDev())
	}
	m.out.also("/var/log/init.log")
	over(false)
	var err error
	m.args, err = cmdline.Read()
	told(err)
	m.runc = &runc{family: m.family, path: findProgram("runc"), debug: m.flag("linuxkit.runc_debug")}
	if !container {
		told(setHugePages(m.args))
		m.times.measure("drivers", func() { m.startDrivers(told) })
		told(setClock())
		told(watchPowerButton(m.requests))
	}
	told(mountControl(!m.cgroupsV1()))
	told(raiseLimits())
	told(raiseLoopback())
	told(setHostname())
	told(makeResolvConf())
	told(m.listenForControl())
	// The daemon takes longer to start than most onboot containers. It must not keep them waiting, nor they it.
	if hasContainerd() {
		if stream, err := m.openStream("containerd"); err != nil {
			told(err)
		} else {
			m.launchContainerd(stream)
		}
	}
	m.runStages(ctx, m.stages("/etc/init.d",
		stage{"005-volumes", func(context.Context) error { return mountVolumes() }},
		stage{"010-onboot", func(ctx context.Context) error { return m.runAll(ctx, contract.Onboot) }},
		stage{"020-containerd", m.startServices},
	))
	if ctx.Err() == nil {
		m.out.say("machine is up, services started: %d", m.started())
		m.out.quote([]byte(m.times.text()))
	}
}

// inContainer tells whether this is the init of a container, where /dev, standard output, the kernel and the clock are somebody else's. The
// number is that of the PID namespace in which the kernel starts (PROC_PID_INIT_INO, include/linux/proc_ns.h); /proc is not there yet then.
func inContainer() bool {
	link, err := os.Readlink("/proc/self/ns/pid")
	return err == nil && link != "pid:[4026531836]"
}

// startDrivers loads the drivers of all devices, those that come later too.
func (m *machine) startDrivers(told func(error)) {
	loader, err := openModules(m.args)
	told(err)
	if loader == nil {
		return
	}
	// Listen first: a device that comes while the others are gone through would else be missed.
	hotplug, err := listenForDevices()
	told(err)
	begin := time.Now()
	told(makeNodes(loader.Nodes()))
	told(loadDrivers(loader))
	m.out.say("drivers: loaded in %.2f s", time.Since(begin).Seconds())
	if hotplug != nil {
		go hotplug.serve(loader, m.out)
	}
}

// stop takes the machine down: onshutdown containers while the services still run, the services, everything else that runs, the disks.
func (m *machine) stop() {
	ctx := context.Background()
	m.runStages(ctx, m.stages("/etc/shutdown.d",
		stage{"010-onshutdown", func(ctx context.Context) error { return m.runAll(ctx, contract.Onshutdown) }},
	))
	m.stopServices()
	if m.containerd != nil {
		m.containerd.stop()
	}
	killAll(2 * time.Second)
	unix.Sync()
	steps := []func() error{unmountDisks}
	if !inContainer() {
		steps = []func() error{swapOff, unmountDisks, releaseDevices}
	}
	for _, step := range steps {
		if err := step(); err != nil {
			m.out.say("%v", err)
		}
	}
}

// killAll ends every process but this one: those that do not end when asked are killed.
func killAll(patience time.Duration) {
	const everyone = -1
	for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		unix.Kill(everyone, signal)
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			if !othersRun() {
				return
			}
		}
	}
}

// othersRun tells whether there is a process besides this one. Threads of the kernel and processes that have ended have no executable.
func othersRun() bool {
	links, _ := filepath.Glob("/proc/[1-9]*/exe") // the pattern is right
	for _, link := range links {
		if _, err := os.Readlink(link); err == nil && link != "/proc/1/exe" {
			return true
		}
	}
	return false
}

// cgroupsV1 tells whether LinuxKit's argument asks for the old version of cgroups.
func (m *machine) cgroupsV1() bool {
	value, _ := cmdline.Lookup(m.args, "linuxkit.unified_cgroup_hierarchy")
	return value == "0"
}

// openStream makes the log of a name. With linuxkit.runc_console=1 it is the console.
func (m *machine) openStream(name string) (*stream, error) {
	if m.flag("linuxkit.runc_console") {
		return openStream(name, m.out)
	}
	return openStream(name, nil)
}

// flag tells whether the kernel's command line has NAME=1.
func (m *machine) flag(name string) bool {
	value, _ := cmdline.Lookup(m.args, name)
	return value == "1"
}

// findProgram looks for a program where every process of the machine does. It gives "" if there is none.
func findProgram(name string) string {
	for dir := range strings.SplitSeq(strings.TrimPrefix(pathEnv, "PATH="), ":") {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}
