package test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/slipway-build/slipway/internal/testutil/buildkitd"
	"github.com/slipway-build/slipway/internal/testutil/clock"
	"github.com/slipway-build/slipway/internal/testutil/stack"
)

var repro = flag.Bool("repro", false, "TestReproducible… build all formats and images, also with a BuildKit whose clock is ahead; takes many minutes")

// ahead is by how much the clocks in the unusual environment are ahead.
const ahead = 400*24*time.Hour + 12345*time.Second

// An environment is a builder and a user. Two environments differ in everything
// that must not change the result of a build.
type environment struct {
	name   string
	daemon *buildkitd.Daemon
	dir    string   // the user's working directory
	buildx []string // the command docker buildx
	env    []string
	user   *syscall.Credential
	umask  string
	args   []string // arguments of builds of machines
}

// usual returns an environment like the stack.
func usual(t *testing.T) *environment {
	return &environment{name: "usual", daemon: fresh(t, buildkitd.Config{}), dir: t.TempDir(), buildx: []string{"docker", "buildx"}, umask: "022"}
}

// unusual returns an environment with the clock ahead, another host name, one
// processor, another time zone and language, and an unprivileged user with a
// narrow umask and another working directory.
func unusual(t *testing.T) *environment {
	t.Helper()
	root, err := stack.Root()
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(root, ".stack", "bin")
	programs := t.TempDir()
	clock.Build(t, programs, "..", ahead, "./cmd/slipway-packer", "./cmd/slipway-exporter")
	config := buildkitd.Config{
		Env:     []string{"TZ=Pacific/Chatham", "LC_ALL=tr_TR.UTF-8", "GOMAXPROCS=1"},
		Command: []string{"unshare", "--uts", "taskset", "--cpu-list", "0", "sh", "-c", `hostname unusual && umask 077 && exec "$@"`, "sh"},
	}
	if *repro {
		clock.Build(t, programs, "../hack/tools", ahead, "github.com/moby/buildkit/cmd/buildkitd")
		config.Binary = filepath.Join(programs, "buildkitd")
	}
	e := &environment{
		name: "unusual", daemon: fresh(t, config), env: config.Env, umask: "077",
		user: &syscall.Credential{Uid: 65534, Gid: 65534},
	}
	// The user has no access to root's files: the daemon's socket, docker's
	// plugins and these programs.
	home, tools := filepath.Join(e.daemon.Dir, "home"), filepath.Join(e.daemon.Dir, "tools")
	e.dir, e.buildx = filepath.Join(home, "a folder", "of", "someone else"), []string{filepath.Join(tools, "buildx")}
	e.env = append(e.env, "HOME="+home, "DOCKER_CONFIG="+home)
	// An image, as the frontend uses, not a local directory: the cache key of a
	// directory is only its content, and BuildKit sometimes omits what depends
	// on it from an exported cache.
	ref := stack.Registry + "/test/unusual-tools"
	e.args = []string{"--build-context=slipway-tools=docker-image://" + ref}
	cmd := e.daemon.Build(t.Context(), "--provenance=false", "-o", "type=registry", "-t", ref, "-f", "-", programs)
	cmd.Stdin = strings.NewReader("FROM scratch\nCOPY --from=slipwaybuild/slipway:1 /loaders /loaders\nCOPY slipway-packer slipway-exporter /\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the image of tools: %v\n%s", err, out)
	}
	for _, args := range [][]string{
		{"mkdir", "-p", e.dir, tools},
		{"cp", filepath.Join(bin, "buildx"), tools},
		{"chmod", "-R", "a+rX", e.daemon.Dir + "/buildkitd.toml", tools},
		{"chmod", "711", e.daemon.Dir},
		{"chmod", "666", strings.TrimPrefix(e.daemon.Address, "unix://")},
		{"chown", "-R", "65534", home, filepath.Join(e.daemon.Dir, "buildx")},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
	return e
}

// as returns a command that runs as the user.
func (e *environment) as(c *exec.Cmd) *exec.Cmd {
	out := exec.Command("sh", append([]string{"-c", "umask " + e.umask + ` && exec "$@"`, "sh"}, c.Args...)...)
	out.Dir, out.Stdin = e.dir, c.Stdin
	out.Env = append(slices.Clone(c.Env), e.env...)
	if e.user != nil {
		out.SysProcAttr = &syscall.SysProcAttr{Credential: e.user}
	}
	return out
}

// write writes a file as the user.
func (e *environment) write(t *testing.T, name, text string) {
	t.Helper()
	cmd := exec.Command("sh", "-c", `mkdir -p "$(dirname "$0")" && cat >"$0"`, name)
	cmd.Stdin = strings.NewReader(text)
	if out, err := e.as(cmd).CombinedOutput(); err != nil {
		t.Fatalf("write %s: %v\n%s", name, err, out)
	}
}

// build runs docker buildx build or bake as the user and returns its output.
func (e *environment) build(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	cmd.Args = append(slices.Clone(e.buildx), cmd.Args[2:]...)
	cmd = e.as(cmd)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("in the %s environment: %q: %v\n%s", e.name, cmd.Args, err, stderr.String())
	}
	return stdout.String()
}

// machine builds machine.yml as the user and returns the output.
func (e *environment) machine(t *testing.T, args ...string) string {
	t.Helper()
	args = slices.Concat(e.args, args, []string{"--progress=plain", "-f", "machine.yml", "."})
	return e.build(t, e.daemon.Build(t.Context(), args...))
}

// digests returns the SHA-256 of each file in a directory of the user.
func (e *environment) digests(t *testing.T, folder string) map[string]string {
	t.Helper()
	out := map[string]string{}
	root := filepath.Join(e.dir, folder)
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		sum := sha256.New()
		if _, err := io.Copy(sum, f); err != nil {
			return err
		}
		name, err = filepath.Rel(root, name)
		out[name] = hex.EncodeToString(sum.Sum(nil))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

const reproducedMachine = cachedMachine + `  - path: etc/app.conf
    source: app.conf
  - path: etc/link
    symlink: app.conf
  - path: var/data
    directory: true
    mode: "0750"
`

// The bytes of each format do not depend on the environment.
func TestReproducible(t *testing.T) {
	stack.Require(t)
	a, b := usual(t), unusual(t)
	for _, e := range []*environment{a, b} {
		e.write(t, "machine.yml", "# syntax=slipwaybuild/slipway:1\n"+reproducedMachine)
		e.write(t, "app.conf", "value\n")
	}
	var list struct{ Targets []struct{ Name string } }
	if err := json.Unmarshal([]byte(a.machine(t, "--call=targets,format=json")), &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Targets) == 0 {
		t.Fatal("no formats")
	}
	// The unusual builder gets the images in another order: one at a time, the
	// last of the YAML first.
	lines := strings.Split(cachedMachine, "\n")
	for _, line := range slices.Backward(lines) {
		if _, image, ok := strings.Cut(line, "image: "); ok {
			b.write(t, "one.yml", "# syntax=slipwaybuild/slipway:1\ninit: ["+image+"]\n")
			b.build(t, b.daemon.Build(t.Context(), "--progress=plain", "--target=tar", "-o", "one", "-f", "one.yml", "."))
		}
	}
	const epoch = 1700000000
	for _, f := range list.Targets {
		if f.Name == "docker" || f.Name == "containerdisk" {
			continue // images, see below and TestContainerDisk
		}
		if !*repro && !slices.Contains([]string{"kernel+initrd", "raw", "tar"}, f.Name) {
			continue // make repro builds all
		}
		t.Run(f.Name, func(t *testing.T) {
			for _, e := range []*environment{a, b} {
				e.machine(t, "--target="+f.Name, "-o", "out/"+f.Name)
				e.machine(t, "--target="+f.Name, "-o", "epoch/"+f.Name, fmt.Sprintf("--build-arg=SOURCE_DATE_EPOCH=%d", epoch))
			}
			for _, folder := range []string{"out", "epoch"} {
				sameTrees(t, a, b, filepath.Join(folder, f.Name))
			}
			files, err := filepath.Glob(filepath.Join(a.dir, "epoch", f.Name, "*"))
			if err != nil || len(files) == 0 {
				t.Fatal("no files", err)
			}
			for _, name := range files {
				info, err := os.Stat(name)
				if err != nil {
					t.Fatal(err)
				}
				if got := info.ModTime().Unix(); got != epoch {
					t.Errorf("%s has the time %s, not SOURCE_DATE_EPOCH", filepath.Base(name), info.ModTime().UTC())
				}
			}
		})
	}
	t.Run("docker", func(t *testing.T) {
		for _, e := range []*environment{a, b} {
			e.machine(t, "--target=docker", "--provenance=false", "-o", "type=oci,tar=false,dest=docker")
		}
		sameTrees(t, a, b, "docker/blobs")
	})
	// Images and exported caches have the same blobs, so that a registry stores
	// them once.
	t.Run("blobs", func(t *testing.T) {
		for _, e := range []*environment{a, b} {
			e.machine(t, "--provenance=false", "-o", "type=oci,tar=false,dest=image", "--cache-to=type=local,mode=max,dest=cache")
		}
		sameTrees(t, a, b, "image/blobs")
		ours, theirs := a.digests(t, "cache/blobs"), b.digests(t, "cache/blobs")
		same := 0
		for name := range ours {
			if _, ok := theirs[name]; ok {
				same++
			}
		}
		// All except the manifest and the configuration, which contains times.
		if len(ours) < 6 || len(theirs) != len(ours) || same != len(ours)-2 {
			t.Errorf("the caches have %d and %d blobs, and %d of them in common: want all except two", len(ours), len(theirs), same)
		}
	})
}

// sameTrees compares the files of two environments and reports the differences.
func sameTrees(t *testing.T, a, b *environment, folder string) {
	t.Helper()
	ours, theirs := a.digests(t, folder), b.digests(t, folder)
	names := slices.Sorted(maps.Keys(ours))
	if others := slices.Sorted(maps.Keys(theirs)); len(names) == 0 || !slices.Equal(names, others) {
		t.Errorf("%s: the files are %q and %q", folder, names, others)
		return
	}
	for _, name := range names {
		if ours[name] == theirs[name] {
			t.Logf("%s %s", ours[name], filepath.Join(folder, name))
			continue
		}
		t.Errorf("%s is not reproducible:\n%s", filepath.Join(folder, name),
			difference(filepath.Join(a.dir, folder, name), filepath.Join(b.dir, folder, name)))
	}
}

// difference returns the first bytes that differ in two files, and for tar
// archives also the lines of their listings that differ.
func difference(a, b string) string {
	var out strings.Builder
	out.WriteString(shell(`cmp "$1" "$2"; cmp -l "$1" "$2" 2>/dev/null | wc -l`, a, b) + "bytes differ\n")
	out.WriteString(shell(`at=$(cmp -l "$1" "$2" 2>/dev/null | awk 'NR == 1 {print int(($1 - 1) / 16) * 16; exit}')
		for f; do od -A d -t x1z -N 64 -j "${at:-0}" "$f"; done`, a, b))
	if strings.HasSuffix(a, ".tar") {
		out.WriteString(shell(`diff <(tar --full-time --numeric-owner -tvf "$1") <(tar --full-time --numeric-owner -tvf "$2") | head -n 20`, a, b))
	}
	return out.String()
}

func shell(script string, args ...string) string {
	out, err := exec.Command("bash", append([]string{"-c", script, "bash"}, args...)...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return err.Error() + "\n"
	}
	return string(out)
}

// The images of the frontend and the packages do not depend on the environment,
// as long as Debian's packages are the same.
func TestReproducibleImages(t *testing.T) {
	stack.Require(t)
	if !*repro {
		t.Skip("compiles and downloads everything twice: run make repro")
	}
	environments := []*environment{usual(t), unusual(t)}
	digests := make([]map[string]string, len(environments))
	for i, e := range environments {
		checkout := exec.Command("git", "ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate", "-z")
		checkout.Dir = ".."
		names, err := checkout.Output()
		if err != nil {
			t.Fatal(err)
		}
		pack := exec.Command("tar", "--create", "--null", "--files-from=-", "--ignore-failed-read")
		pack.Dir, pack.Stdin = "..", bytes.NewReader(names)
		files, err := pack.Output()
		if err != nil {
			t.Fatal(err)
		}
		unpack := exec.Command("tar", "--extract", "--no-same-permissions")
		unpack.Stdin = bytes.NewReader(files)
		if out, err := e.as(unpack).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		e.bake(t, "--metadata-file=metadata.json", "--set=*.output=type=image,rewrite-timestamp=true,compression=zstd,force-compression=true")
		data, err := os.ReadFile(filepath.Join(e.dir, "metadata.json"))
		if err != nil {
			t.Fatal(err)
		}
		var metadata map[string]struct {
			Digest string `json:"containerimage.digest"`
		}
		if err := json.Unmarshal(data, &metadata); err != nil {
			t.Fatal(err)
		}
		digests[i] = map[string]string{}
		for name, m := range metadata {
			if m.Digest != "" {
				digests[i][name] = m.Digest
			}
		}
	}
	if len(digests[0]) < 2 {
		t.Fatalf("found only the images %v", digests[0])
	}
	for _, name := range slices.Sorted(maps.Keys(digests[0])) {
		if digests[0][name] == digests[1][name] {
			t.Logf("%s %s", digests[0][name], name)
			continue
		}
		archive := name + ".tar"
		for _, e := range environments {
			e.bake(t, "--set="+name+".output=type=tar,dest="+archive, name)
		}
		t.Errorf("image %s is not reproducible:\n%s", name,
			difference(filepath.Join(environments[0].dir, archive), filepath.Join(environments[1].dir, archive)))
	}
}

func (e *environment) bake(t *testing.T, args ...string) {
	t.Helper()
	e.build(t, e.daemon.Bake(t.Context(), append(args, "--progress=plain", "--allow=fs=*")...))
}
