package test

import (
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/buildkitd"
	"github.com/slipway-build/slipway/internal/testutil/stack"
)

// fleet is a registry for caches and one for packages, each behind a meter, and the settings of daemons that use them.
type fleet struct {
	packages, caches *buildkitd.Meter
	config           buildkitd.Config
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	stack.Require(t)
	registry, err := buildkitd.StartRegistry(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := registry.Stop(); err != nil {
			t.Error(err)
		}
	})
	f := &fleet{packages: metered(t, stack.Registry), caches: metered(t, registry.Address)}
	f.config = buildkitd.Config{Mirror: f.packages.Address, Registries: []string{f.caches.Address}}
	return f
}

// reset forgets what was counted.
func (f *fleet) reset() {
	f.packages.Reset()
	f.caches.Reset()
}

// push builds an image from a Dockerfile on a daemon and gives its reference.
func (f *fleet) push(t *testing.T, d *buildkitd.Daemon, name, dockerfile string) string {
	t.Helper()
	ref := f.caches.Address + "/" + name
	cmd := d.Build(t.Context(), "--progress=plain", "--provenance=false", "-o", "type=registry", "-t", ref, "-")
	cmd.Stdin = strings.NewReader(dockerfile)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	return ref
}

// crossed counts the large blobs that came out of a registry, by repository,
// and gives the sum of all.
func crossed(m *buildkitd.Meter) (blobs map[string]int, sum int64) {
	pulled, _ := m.Reset()
	blobs = map[string]int{}
	for blob, n := range pulled {
		sum += n
		if n > large {
			blobs[blob.Repository]++
		}
	}
	return blobs, sum
}

const cachedMachine = `kernel:
  image: slipwaybuild/kernel:v1
init:
  - slipwaybuild/init:v1
  - slipwaybuild/runc:v1
onboot:
  - name: sysctl
    image: slipwaybuild/sysctl:v1
services:
  - name: rngd
    image: slipwaybuild/rngd:v1
  - name: sshd
    image: slipwaybuild/sshd:v1
files:
  - path: etc/motd
    contents: hello
`

// What the packages of cachedMachine become.
var (
	packed = []string{
		"[init[0]] pack", "[init[1]] pack", "[kernel] pack", "[onboot.sysctl] pack",
		"[raw] write", "[services.rngd] pack", "[services.sshd] pack",
	}
	repacked = []string{"[raw] write", "[services.rngd] pack"}
)

const (
	frontendBlobs = 2 // exporter with frontend, boot loaders
	segmentBlobs  = 5 // of all but rngd
	rngdBlobs     = 1
)

// A new builder takes a machine that did not change out of the cache: it packs
// nothing, and pulls the output and nothing of the packages. Of a machine with
// one changed service it pulls and packs that one, and pulls the segments of
// the others, if the cache has them (mode=max).
func TestCache(t *testing.T) {
	f := newFleet(t)
	dir := machineYAML(t, cachedMachine)
	folders := t.TempDir()
	a := fresh(t, f.config)
	// First the smaller: BuildKit exports in mode=min also what earlier exports made blobs of.
	for _, mode := range []string{"min", "max"} {
		ran := builds(t, a, dir, "--target=raw", "-o", "a",
			"--cache-to=type=registry,mode="+mode+",ref="+f.caches.Address+"/cache/"+mode,
			"--cache-to=type=local,mode="+mode+",dest="+filepath.Join(folders, mode))
		if mode == "min" {
			sameVertices(t, "an empty builder", ran, packed)
		}
		_, pushed := f.caches.Reset()
		t.Logf("mode=%s: %.1f MB pushed", mode, float64(pushed)/1e6)
	}
	changed := f.push(t, a, "changed/rngd", "FROM slipwaybuild/rngd:v1\nCOPY <<EOF /version\n2\nEOF\n")
	change := "--build-context=slipwaybuild/rngd:v1=docker-image://" + changed

	for _, c := range []struct {
		name, from string
		after      []string       // what runs after the change
		caches     map[string]int // large blobs pulled after the change
		packages   map[string]int
	}{
		{
			name: "registry max", from: "type=registry,ref=" + f.caches.Address + "/cache/max", after: repacked,
			caches:   map[string]int{"cache/max": segmentBlobs, "changed/rngd": rngdBlobs},
			packages: map[string]int{"slipwaybuild/slipway": frontendBlobs},
		},
		{
			name: "registry min", from: "type=registry,ref=" + f.caches.Address + "/cache/min", after: packed,
			caches: map[string]int{"changed/rngd": rngdBlobs},
			packages: map[string]int{
				"slipwaybuild/slipway": frontendBlobs, "slipwaybuild/kernel": 1, "slipwaybuild/init": 1,
				"slipwaybuild/runc": 1, "slipwaybuild/sysctl": 1, "slipwaybuild/sshd": 1,
			},
		},
		{
			name: "local max", from: "type=local,src=" + filepath.Join(folders, "max"), after: repacked,
			caches:   map[string]int{"changed/rngd": rngdBlobs},
			packages: map[string]int{"slipwaybuild/slipway": frontendBlobs},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := fresh(t, f.config)
			f.reset()
			sameVertices(t, "an unchanged machine", builds(t, b, dir, "--cache-from="+c.from, "--target=raw", "-o", "b"), nil)
			sameFile(t, filepath.Join(dir, "a", "machine.raw"), filepath.Join(dir, "b", "machine.raw"))
			fromCache := 1 // the disk
			if got := len(largeBlobs(t, b)); got != frontendBlobs+fromCache {
				t.Errorf("an unchanged machine: the builder has %d large blobs, want the frontend's and the disk", got)
			}
			blobs, sum := crossed(f.packages)
			if want := map[string]int{"slipwaybuild/slipway": frontendBlobs}; !maps.Equal(blobs, want) {
				t.Errorf("an unchanged machine pulled %v, want %v", blobs, want)
			}
			_, cached := crossed(f.caches)
			t.Logf("unchanged: %.1f MB of packages and frontend, %.1f MB of the cache", float64(sum)/1e6, float64(cached)/1e6)

			b = fresh(t, f.config)
			sameVertices(t, "one changed service", builds(t, b, dir, "--cache-from="+c.from, change, "--target=raw", "-o", "c"), c.after)
			blobs, sum = crossed(f.packages)
			if !maps.Equal(blobs, c.packages) {
				t.Errorf("one changed service pulled %v, want %v", blobs, c.packages)
			}
			blobs, cached = crossed(f.caches)
			if !maps.Equal(blobs, c.caches) {
				t.Errorf("one changed service pulled %v, want %v", blobs, c.caches)
			}
			t.Logf("one changed: %.1f MB of packages and frontend, %.1f MB of the cache", float64(sum)/1e6, float64(cached)/1e6)
		})
	}
}

// Builders that share a registry's caches share the work: one makes another
// machine of nine components that a second one packed, and a third makes that
// machine out of what both wrote.
func TestSharedCache(t *testing.T) {
	f := newFleet(t)
	const shared = `kernel:
  image: slipwaybuild/kernel:v1
init:
  - slipwaybuild/init:v1
  - slipwaybuild/runc:v1
  - slipwaybuild/containerd:v1
  - slipwaybuild/ca-certificates:v1
onboot:
  - name: sysctl
    image: slipwaybuild/sysctl:v1
  - name: dhcpcd
    image: slipwaybuild/dhcpcd:v1
  - name: metadata
    image: slipwaybuild/metadata:v1
services:
  - name: sshd
    image: slipwaybuild/sshd:v1
`
	web := machineYAML(t, shared+"  - name: rngd\n    image: slipwaybuild/rngd:v1\n")
	a, b, c := fresh(t, f.config), fresh(t, f.config), fresh(t, f.config)
	agent := f.push(t, a, "agent:1", "FROM slipwaybuild/rngd:v1\nCOPY <<EOF /etc/agent\nagent\nEOF\n")
	db := machineYAML(t, shared+"  - name: agent\n    image: "+agent+"\n")
	cache := func(name string) string { return "type=registry,ref=" + f.caches.Address + "/cache/" + name }

	if ran := builds(t, a, web, "--cache-to=mode=max,compression=zstd,"+cache("web"), "-o", "out"); len(ran) != 11 {
		t.Fatalf("the first machine ran %q, want ten components and write", ran)
	}
	f.reset()
	sameVertices(t, "a machine that shares nine of ten components",
		builds(t, b, db, "--cache-from="+cache("web"), "--cache-to=mode=max,compression=zstd,"+cache("db"), "-o", "out"),
		[]string{"[kernel+initrd] write", "[services.agent] pack"})
	pulled, _ := crossed(f.packages)
	if want := map[string]int{"slipwaybuild/slipway": frontendBlobs}; !maps.Equal(pulled, want) {
		t.Errorf("it pulled %v, want %v", pulled, want)
	}
	_, sum := crossed(f.caches)
	t.Logf("%.1f MB pulled from the shared cache", float64(sum)/1e6)

	sameVertices(t, "the same machine on a third builder",
		builds(t, c, db, "--cache-from="+cache("web"), "--cache-from="+cache("db"), "-o", "again"), nil)
	for _, name := range []string{"machine-initrd.img", "machine-kernel"} {
		sameFile(t, filepath.Join(db, "out", name), filepath.Join(db, "again", name))
	}
}
