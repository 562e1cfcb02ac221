// Package docs tests what the documentation shows: every code block of
// README.md and docs/ is built, booted or run.
//
// The blocks of a page are tested in order in a copy of the checkout. The test
// writes the files of a page there, and runs its commands there. It boots
// complete machines until their services run. Other machine YAML must pass
// docker buildx build --check. The type block describes the comments that
// change this.
package docs

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/slipway-build/slipway/internal/testutil/stack"
	"github.com/slipway-build/slipway/internal/vm"
	"github.com/slipway-build/slipway/internal/vm/cloud"
	"github.com/slipway-build/slipway/publisher/awstest"
)

// TestBlocks checks without the stack that the blocks parse, and that JSON is
// valid.
func TestBlocks(t *testing.T) {
	all, err := pages("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, blocks := range all {
		for _, b := range blocks {
			switch {
			case b.language == "json" && !json.Valid([]byte(b.text)):
				t.Errorf("%s: invalid JSON", b)
			case b.language == "yaml" && b.skip == "" && !b.onlyComments():
				m, err := b.machine()
				if err != nil {
					t.Error(err)
				} else if m == nil && b.file == "" {
					t.Errorf("%s: the YAML is not a machine: say which file it is, or why it is not tested", b)
				}
			}
		}
	}
}

// TestPages builds, boots and runs the blocks of every page.
func TestPages(t *testing.T) {
	stack.Require(t)
	root, err := stack.Root()
	if err != nil {
		t.Fatal(err)
	}
	all, err := pages(root)
	if err != nil {
		t.Fatal(err)
	}
	tools := newTools(t, root)
	for _, page := range slices.Sorted(maps.Keys(all)) {
		blocks, name := all[page], page
		if page != "docs/README.md" {
			name = strings.TrimPrefix(page, "docs/")
		}
		t.Run(name, func(t *testing.T) {
			// No command of a page may reach a real account, or the images that
			// another page published.
			fake := awstest.Start(t, awstest.Knobs{})
			p := &pageTest{
				tools: tools, dir: filepath.Join(t.TempDir(), "slipway"),
				env: slices.Concat(tools.env, fake.Env()),
			}
			defer p.close()
			for _, b := range blocks {
				if b.skip == "" && !t.Failed() {
					start := time.Now()
					p.test(t, b)
					t.Logf("%s: %.1f s", b, time.Since(start).Seconds())
				}
			}
		})
	}
}

// tools has what all pages require.
type tools struct {
	root     string
	env      []string
	standins map[string]string // OCI layouts by the name of an example image

	mu     sync.Mutex
	booted map[[sha256.Size]byte]bool
}

// newTools builds the commands and the images that the pages use.
func newTools(t *testing.T, root string) *tools {
	bin := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", bin+"/", root+"/cmd/slipway", root+"/cmd/slipway-publish").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// QEMU must emulate the machines of the pages on each host.
	write(t, filepath.Join(bin, "qemu-system-x86_64"), "#!/bin/bash\nexec /usr/bin/qemu-system-x86_64 \"${@/kvm/tcg}\"\n", 0o755)
	home := t.TempDir()
	docker := os.Getenv("DOCKER_CONFIG")
	if docker == "" {
		docker = filepath.Join(os.Getenv("HOME"), ".docker")
	}
	goEnv, err := exec.Command("go", "env", "GOMODCACHE", "GOCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	cache := strings.Fields(string(goEnv))
	tl := &tools{root: root, standins: map[string]string{}, booted: map[[sha256.Size]byte]bool{}}
	tl.env = append(os.Environ(),
		"PATH="+bin+":"+os.Getenv("PATH"),
		"HOME="+home, "XDG_STATE_HOME=", "DOCKER_CONFIG="+docker, "GOMODCACHE="+cache[0], "GOCACHE="+cache[1],
		"BUILDX_BUILDER="+stack.Builder, "BUILDKIT_PROGRESS=plain",
	)

	// Stand-ins for images that the pages name as examples.
	const label, run = "LABEL org.mobyproject.config='readonlyPaths: [/proc/sys, /sys]'\n", "ENV PATH=/bin\nCMD [\"/run\"]\n"
	for name, dockerfile := range map[string]string{
		"web": run + label, "user": run + "USER 33\n" + label, "silent": label, "bare": run,
		"greedy": run + "LABEL org.mobyproject.config='pid: host'\n",
	} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "Dockerfile"), "FROM scratch\nCOPY Dockerfile /run\n"+dockerfile, 0o644)
		stack.MustBuildx(t, dir, "--provenance=false", "-o", "type=oci,tar=false,dest="+filepath.Join(dir, "image"), ".")
		tl.standins[name] = "oci-layout://" + filepath.Join(dir, "image")
	}
	return tl
}

func write(t *testing.T, file, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// A pageTest tests the blocks of a page.
type pageTest struct {
	*tools
	env     []string
	dir     string // copy of the checkout, "" until a block requires it
	running []*exec.Cmd
}

func (p *pageTest) test(t *testing.T, b *block) {
	p.copyCheckout(t)
	file := b.file
	if b.language == "yaml" && !b.onlyComments() {
		m, err := b.machine()
		if err != nil {
			t.Fatal(err)
		}
		if m != nil {
			if file == "" {
				file = fmt.Sprintf("block-%d.yml", b.line)
			}
			write(t, filepath.Join(p.dir, file), b.text, 0o644)
			p.testMachine(t, b, m, file)
			return
		}
	}
	switch {
	case file != "":
		write(t, filepath.Join(p.dir, file), b.text, 0o644)
	case b.language == "sh":
		p.run(t, b)
	}
}

// copyCheckout copies the files of the checkout that Git tracks or would add.
func (p *pageTest) copyCheckout(t *testing.T) {
	if _, err := os.Stat(p.dir); err == nil {
		return
	}
	if err := os.Mkdir(p.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("bash", "-c", `git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents --reflink=auto -t "$0"`, p.dir)
	cmd.Dir = p.root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("copy the checkout: %v\n%s", err, out)
	}
}

var exampleImage = regexp.MustCompile(`example\.com/([a-z-]+)(:[\w.]+)?`)

// testMachine checks a machine YAML, and boots the machine if it is complete.
func (p *pageTest) testMachine(t *testing.T, b *block, m *machine, file string) {
	for _, f := range m.Files { // files that the page only mentions
		if f.Source != "" && filepath.IsLocal(f.Source) {
			if path := filepath.Join(p.dir, f.Source); !exists(path) {
				write(t, path, "text\n", 0o644)
			}
		}
	}
	args := []string{"-f", file, "--build-arg", "BUILDKIT_SYNTAX=slipwaybuild/slipway:1"}
	for _, image := range exampleImage.FindAllStringSubmatch(b.text, -1) {
		standin := cmp.Or(p.standins[image[1]], p.standins["web"])
		name := image[0]
		if image[2] == "" {
			name += ":latest"
		}
		args = append(args, "--build-context", name+"="+standin)
	}
	stdout, stderr, err := stack.Buildx(p.dir, append([]string{"--check"}, append(args, ".")...)...)
	var warnings []string
	for _, w := range regexp.MustCompile(`(?m)^WARNING: (\w+)`).FindAllStringSubmatch(stdout, -1) {
		if !slices.Contains(warnings, w[1]) {
			warnings = append(warnings, w[1])
		}
	}
	var want []string
	if b.warning != "" {
		want = []string{b.warning}
	}
	switch {
	case !slices.Equal(warnings, want):
		t.Errorf("%s: warnings %v, want %v\n%s%s", b, warnings, want, stdout, stderr)
	case err != nil && want == nil:
		t.Errorf("%s: --check: %v\n%s%s", b, err, stdout, stderr)
	}
	if b.warning != "" || b.booted != "" || !m.complete() || t.Failed() || p.alreadyBooted(b.text) {
		return
	}
	out := t.TempDir()
	stack.MustBuildx(t, p.dir, append(args, "--build-arg", "NAME=machine", "-o", out, ".")...)
	t.Run("line"+strconv.Itoa(b.line), func(t *testing.T) {
		t.Parallel()
		boot(t, m, out)
	})
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// alreadyBooted reports whether another block had the same text.
func (tl *tools) alreadyBooted(text string) bool {
	tl.mu.Lock()
	defer tl.mu.Unlock()
	sum := sha256.Sum256([]byte(text))
	before := tl.booted[sum]
	tl.booted[sum] = true
	return before
}

// upLine matches the line that the init prints when the machine has started.
var upLine = regexp.MustCompile(`machine is up, services started: (\d+)`)

// boot boots a machine that has an empty disk and EC2's metadata service, and
// checks that all its services run. It logs in if the machine has sshd,
// metadata and dhcpcd.
func boot(t *testing.T, m *machine, dir string) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	key, err := vm.NewKey(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(t.TempDir(), "data.raw")
	write(t, data, "", 0o644)
	if err := os.Truncate(data, 256<<20); err != nil {
		t.Fatal(err)
	}
	cmdline, err := os.ReadFile(filepath.Join(dir, "machine-cmdline"))
	if err != nil {
		t.Fatal(err)
	}
	logs := stack.Artifacts(t)
	machine, err := vm.Start(ctx, vm.Config{
		Kernel:  filepath.Join(dir, "machine-kernel"),
		Initrd:  filepath.Join(dir, "machine-initrd.img"),
		Cmdline: strings.TrimSpace(string(cmdline)),
		Data:    []vm.Drive{{File: data}},
		LogDir:  logs,
		Metadata: &cloud.Instance{
			ID: "i-0123456789abcdef0", Hostname: "docs", PublicKeys: []string{key.Public},
			UserData: `{"app": {"entries": {"greeting": {"content": "hello"}}}}`,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer machine.Kill()
	fail := func(format string, args ...any) {
		t.Fatalf("%s\nend of %s/console.log:\n%s", fmt.Sprintf(format, args...), logs, machine.ConsoleTail(60))
	}
	if _, err := machine.WaitConsole(ctx, upLine); err != nil {
		fail("%v", err)
	}
	console, err := os.ReadFile(filepath.Join(logs, "console.log"))
	if err != nil {
		t.Fatal(err)
	}
	if started := string(upLine.FindSubmatch(console)[1]); started != strconv.Itoa(len(m.Services)) {
		fail("%s services started, want %d", started, len(m.Services))
	}
	if m.has("sshd") && m.has("metadata") && m.has("dhcpcd") {
		if _, err := machine.WaitSSH(ctx, key); err != nil {
			fail("%v", err)
		}
		list, err := machine.SSH(ctx, key, "nsenter --target 1 --mount service list")
		if err != nil {
			fail("%v", err)
		}
		for _, s := range m.Services {
			if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(s.Name) + ` +running`).MatchString(list.Stdout) {
				fail("service %s does not run:\n%s%s", s.Name, list.Stdout, list.Stderr)
			}
		}
	}
	if console, _ = os.ReadFile(filepath.Join(logs, "console.log")); regexp.MustCompile(`\b(onboot|service)\b.*\bfailed`).Match(console) {
		fail("a container failed")
	}
}

// run runs a shell block.
func (p *pageTest) run(t *testing.T, b *block) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	deadline := time.Now().Add(time.Minute)
	for {
		out, err := p.runOnce(ctx, t, b)
		switch {
		case b.failure != "" && err != nil && strings.Contains(out, b.failure):
			return
		case b.failure != "":
			t.Fatalf("%s: error %v, want one with %q\n%s\n%s", b, err, b.failure, b.text, out)
		case err == nil:
			return
		case b.retried == "" || time.Now().After(deadline):
			t.Fatalf("%s: %v\n%s\n%s", b, err, b.text, out)
		}
		time.Sleep(time.Second)
	}
}

// runOnce runs a shell block to its end, or in the background until it is
// ready, and returns its output.
func (p *pageTest) runOnce(ctx context.Context, t *testing.T, b *block) (string, error) {
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", b.text)
	cmd.Dir = p.dir
	cmd.Env = p.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// A file, not a pipe, so that Wait does not wait for background processes.
	log, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	output := func() string {
		text, err := os.ReadFile(log.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if b.background != "" { // QEMU exits when its console is closed
		if _, err := cmd.StdinPipe(); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.running = append(p.running, cmd)
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	ready := regexp.MustCompile(b.background)
	for {
		select {
		case err := <-done:
			if b.background != "" {
				err = fmt.Errorf("exited before its output matched %q: %v", ready, err)
			}
			return output(), err
		case <-ctx.Done():
			return output(), errors.New("takes longer than 5 minutes")
		case <-time.After(100 * time.Millisecond):
			switch out := output(); {
			case b.background == "":
			case ready.MatchString(out):
				return out, nil
			case strings.Contains(out, "Kernel panic"):
				return out, errors.New("the kernel panics")
			}
		}
	}
}

// close stops the background commands.
func (p *pageTest) close() {
	for _, cmd := range p.running {
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			panic(err)
		}
	}
}
