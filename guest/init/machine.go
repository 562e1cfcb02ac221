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

	"github.com/slipway-build/slipway/guest/bundle"
	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/kernel/cmdline"
)

// machine is the state of process 1.
type machine struct {
	out       *console
	times     *timeline
	reaper    *reaper
	requests  chan powerState
	container bool          // whether this is the init of a container, see inContainer
	args      []cmdline.Arg // of the kernel
	resets    bool          // whether only a reset ends the machine
	runc      *runc

	disks           *disks        // nil in a container
	containerd      *daemon       // nil without containerd
	containerdPlace string        // places when it was started
	turns           chan struct{} // see newTurns
	dumps           []dump        // of earlier boots
	mu              sync.Mutex
	services        []*service
	up              time.Duration // when the services had started, as sinceBoot
	changed         chan struct{} // see touch
	failures        []string      // see noteFailure
}

// runMachine is process 1: it starts the machine, waits for a request to stop it,
// and stops it.
func runMachine() {
	requests := make(chan powerState, 1)
	listenForPower(requests)
	m := &machine{
		out: &console{out: []io.Writer{os.Stdout}}, times: &timeline{}, reaper: newReaper(), requests: requests, container: inContainer(),
		turns: newTurns(), changed: make(chan struct{}, 1),
	}
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
		m.out.say("the boot does not end; stopping anyway")
	}
	m.stop()
	if !m.container {
		m.report(m.recordFailures())
	}
	if state.status != nil {
		m.out.say("%s%d", contract.ExitStatus, *state.status)
	}
	m.out.say("%s now", state.name)
	m.out.drain()
	unix.Sync()
	err := unix.Reboot(state.commandFor(m.resets))
	m.out.say("%s: %v", state.name, err)
	select {} // if process 1 exits, the kernel panics
}

// report prints an error, unless it is nil.
func (m *machine) report(err error) {
	if err != nil {
		m.out.say("%v", err)
	}
}

// start boots the machine. If a step fails, it prints the error and continues,
// because a machine that works in part can be examined.
func (m *machine) start(ctx context.Context) {
	if !m.container {
		m.times.add("kernel", 0, sinceBoot())
	}
	m.times.measure("filesystems", m.mountFilesystems)
	var err error
	m.args, err = cmdline.Read()
	m.report(err)
	m.runc = &runc{reaper: m.reaper, path: findProgram("runc"), debug: m.flag("linuxkit.runc_debug")}
	if !m.container {
		m.report(setPanic(m.args))
		m.report(setHugePages(m.args))
		m.times.measure("drivers", m.startDrivers)
		m.resets = endsByReset(m.args)
		m.report(m.joinHost())
		m.report(setClock())
		m.report(watchPowerButton(m.requests))
	}
	m.report(mountControl(!m.cgroupsV1()))
	m.dumps, err = readPstore(pstoreDir)
	m.report(err)
	m.showDumps(m.dumps)
	if bundle.OwnLimits() != nil {
		m.out.say("without CAP_SYS_RESOURCE, resource limits and OOM scores of containers are not above those of the init")
	}
	m.report(raiseLimits())
	m.report(raiseLoopback())
	m.report(setHostname())
	m.report(makeResolvConf())
	m.report(m.listenForControl())
	// The daemon takes longer to start than most onboot containers, so they start
	// at the same time.
	if hasContainerd() {
		if stream, err := m.openStream("containerd"); err != nil {
			m.report(err)
		} else {
			m.launchContainerd(stream)
		}
	}
	m.runStages(ctx, m.stages("/etc/init.d",
		stage{"005-volumes", func(context.Context) error { return mountVolumes() }},
		stage{"010-onboot", m.runOnboot},
		stage{"020-containerd", m.startServices},
	))
	if ctx.Err() == nil {
		m.mu.Lock()
		m.up = sinceBoot()
		m.mu.Unlock()
		m.touch()
		m.out.say("machine is up, services started: %d", m.started())
		m.out.quote([]byte(m.times.text()))
	}
}

// mountFilesystems mounts everything that needs neither drivers nor the kernel
// command line. Only then is there a console and a log.
func (m *machine) mountFilesystems() {
	unix.Umask(0o022)
	rootErr := setRoot()
	var kernelErr error
	if !m.container {
		kernelErr = mountKernel()
		openConsole()
	}
	m.out.say("slipway init")
	m.report(rootErr)
	m.report(kernelErr)
	m.report(restoreXattrs("/" + contract.XattrsDir))
	m.report(mountWritable())
	if !m.container {
		m.report(fillDev())
	}
	m.out.also("/var/log/init.log")
}

// inContainer reports whether this is the init of a container, where /dev,
// standard output, the kernel and the clock belong to the host. The number is
// that of the PID namespace in which the kernel starts (PROC_PID_INIT_INO,
// include/linux/proc_ns.h). On a machine, /proc is not mounted at first.
var inContainer = sync.OnceValue(func() bool {
	link, err := os.Readlink("/proc/self/ns/pid")
	return err == nil && link != "pid:[4026531836]"
})

// startDrivers loads the drivers of all devices, including those that appear
// later.
func (m *machine) startDrivers() {
	loader, err := openModules(m.args)
	m.report(err)
	m.report(startWatchdog(loader, m.args))
	// Listen first, or a device that appears meanwhile would be missed.
	hotplug, err := listenForDevices()
	m.report(err)
	if loader != nil {
		m.report(loadPstore(loader, m.args))
		begin := time.Now()
		m.report(makeNodes(loader.Nodes()))
		m.report(loadDrivers(loader))
		m.out.say("drivers: loaded in %.2f s", time.Since(begin).Seconds())
	}
	m.disks, err = newDisks(m.out)
	m.report(err)
	if hotplug != nil {
		hotplug.loader, hotplug.disks, hotplug.out = loader, m.disks, m.out
		go hotplug.serve()
	}
	m.disks.scan()
	m.disks.settle(time.Second)
}

// stop runs the onshutdown containers while the services still run, then stops
// the services and all other processes, and unmounts the disks.
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
	if m.container {
		m.report(unmountDisks())
		return
	}
	m.report(swapOff())
	m.report(unmountDisks())
	m.report(releaseDevices())
}

// killAll asks every other process to end, and kills those that do not.
func killAll(timeout time.Duration) {
	const everyone = -1
	for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		unix.Kill(everyone, signal)
		for deadline := time.Now().Add(timeout); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			if !othersRun() {
				return
			}
		}
	}
}

// othersRun reports whether another process runs. Kernel threads and processes
// that have ended have no executable.
func othersRun() bool {
	links, _ := filepath.Glob("/proc/[1-9]*/exe") // the pattern is valid
	for _, link := range links {
		if _, err := os.Readlink(link); err == nil && link != "/proc/1/exe" {
			return true
		}
	}
	return false
}

// cgroupsV1 reports whether the machine uses cgroups of version 1: because the
// kernel command line asks for them or, in a container, because the host has
// them. There, a container engine could not start another process in a container
// that enables controllers of version 2.
func (m *machine) cgroupsV1() bool {
	if m.container {
		controllers, err := controllersV1()
		m.report(err)
		return len(controllers) > 0
	}
	value, _ := cmdline.Lookup(m.args, "linuxkit.unified_cgroup_hierarchy")
	return value == "0"
}

// openStream opens the log of a service: the console if linuxkit.runc_console=1
// is set.
func (m *machine) openStream(name string) (*stream, error) {
	if m.flag("linuxkit.runc_console") {
		return openStream(name, m.out)
	}
	return openStream(name, nil)
}

// flag reports whether the kernel command line has NAME=1.
func (m *machine) flag(name string) bool {
	value, _ := cmdline.Lookup(m.args, name)
	return value == "1"
}

// findProgram looks for a program in the PATH of the machine. It returns "" if
// there is none.
func findProgram(name string) string {
	for dir := range strings.SplitSeq(strings.TrimPrefix(pathEnv, "PATH="), ":") {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}
