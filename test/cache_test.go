package test

import (
	"maps"
	"path/filepath"
	"testing"
)

// cachedMachine is the machine that tests of caches and builders build.
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

// Vertices of builds of cachedMachine.
var (
	// packed are those of a first build as a raw disk.
	packed = []string{
		"[init[0]] pack", "[init[1]] pack", "[kernel] pack", "[onboot.sysctl] pack",
		"[raw] write", "[services.rngd] pack", "[services.sshd] pack",
	}
	// repacked are those after a change of rngd.
	repacked = []string{"[raw] write", "[services.rngd] pack"}
)

// Numbers of large blobs.
const (
	frontendBlobs = 2 // exporter with frontend, boot loaders
	segmentBlobs  = 5 // segments except that of rngd
	rngdBlobs     = 1
)

// A new builder takes an unchanged machine from the cache: it packs nothing,
// pulls the output, and pulls no package. If one service has changed, it pulls
// and packs that service. It pulls the segments of the others if the cache has
// them (mode=max).
func TestCache(t *testing.T) {
	r := startRegistries(t)
	dir := machineYAML(t, cachedMachine)
	folders := t.TempDir()
	a := fresh(t, r.config)
	// mode=min first: in this mode BuildKit also exports the blobs that earlier
	// exports created.
	for _, mode := range []string{"min", "max"} {
		ran := builds(t, a, dir, "--target=raw", "-o", "a",
			"--cache-to=type=registry,mode="+mode+",ref="+r.caches.Address+"/cache/"+mode,
			"--cache-to=type=local,mode="+mode+",dest="+filepath.Join(folders, mode))
		if mode == "min" {
			sameVertices(t, "an empty builder", ran, packed)
		}
		_, pushed := r.caches.Reset()
		t.Logf("mode=%s: %.1f MB pushed", mode, float64(pushed)/1e6)
	}
	changed := r.push(t, a, "changed/rngd", "FROM slipwaybuild/rngd:v1\nCOPY <<EOF /version\n2\nEOF\n")
	change := "--build-context=slipwaybuild/rngd:v1=docker-image://" + changed

	for _, c := range []struct {
		name, from string
		after      []string       // vertices that run after the change
		caches     map[string]int // large blobs pulled after the change
		packages   map[string]int
	}{
		{
			name: "registry max", from: "type=registry,ref=" + r.caches.Address + "/cache/max", after: repacked,
			caches:   map[string]int{"cache/max": segmentBlobs, "changed/rngd": rngdBlobs},
			packages: map[string]int{"slipwaybuild/slipway": frontendBlobs},
		},
		{
			name: "registry min", from: "type=registry,ref=" + r.caches.Address + "/cache/min", after: packed,
			caches: map[string]int{"changed/rngd": rngdBlobs},
			packages: map[string]int{
				"slipwaybuild/slipway": frontendBlobs, "slipwaybuild/kernel": 1, "slipwaybuild/init": 1,
				"slipwaybuild/runc": 1, "slipwaybuild/sysctl": 1, "slipwaybuild/sshd": 2,
			},
		},
		{
			name: "local max", from: "type=local,src=" + filepath.Join(folders, "max"), after: repacked,
			caches:   map[string]int{"changed/rngd": rngdBlobs},
			packages: map[string]int{"slipwaybuild/slipway": frontendBlobs},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := fresh(t, r.config)
			r.reset()
			sameVertices(t, "an unchanged machine", builds(t, b, dir, "--cache-from="+c.from, "--target=raw", "-o", "b"), nil)
			sameFile(t, filepath.Join(dir, "a", "machine.raw"), filepath.Join(dir, "b", "machine.raw"))
			const disk = 1
			if got := len(largeBlobs(t, b)); got != frontendBlobs+disk {
				t.Errorf("an unchanged machine: the builder has %d large blobs, want the frontend's and the disk", got)
			}
			blobs, sum := pulled(r.packages)
			if want := map[string]int{"slipwaybuild/slipway": frontendBlobs}; !maps.Equal(blobs, want) {
				t.Errorf("an unchanged machine pulled %v, want %v", blobs, want)
			}
			_, cached := pulled(r.caches)
			t.Logf("unchanged: %.1f MB of packages and frontend, %.1f MB from the cache", float64(sum)/1e6, float64(cached)/1e6)

			b = fresh(t, r.config)
			sameVertices(t, "one changed service", builds(t, b, dir, "--cache-from="+c.from, change, "--target=raw", "-o", "c"), c.after)
			blobs, sum = pulled(r.packages)
			if !maps.Equal(blobs, c.packages) {
				t.Errorf("one changed service pulled %v, want %v", blobs, c.packages)
			}
			blobs, cached = pulled(r.caches)
			if !maps.Equal(blobs, c.caches) {
				t.Errorf("one changed service pulled %v, want %v", blobs, c.caches)
			}
			t.Logf("one changed: %.1f MB of packages and frontend, %.1f MB from the cache", float64(sum)/1e6, float64(cached)/1e6)
		})
	}
}

// Builders that share caches in a registry share the work. The first builder
// exports the cache of a machine. The second builds another machine with nine
// of the same ten components, and packs only the tenth. The third builds that
// machine from the two caches and packs nothing.
func TestSharedCache(t *testing.T) {
	r := startRegistries(t)
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
	a, b, c := fresh(t, r.config), fresh(t, r.config), fresh(t, r.config)
	agent := r.push(t, a, "agent:1", "FROM slipwaybuild/rngd:v1\nCOPY <<EOF /etc/agent\nagent\nEOF\n")
	db := machineYAML(t, shared+"  - name: agent\n    image: "+agent+"\n")
	cache := func(name string) string { return "type=registry,ref=" + r.caches.Address + "/cache/" + name }

	if ran := builds(t, a, web, "--cache-to=mode=max,compression=zstd,"+cache("web"), "-o", "out"); len(ran) != 11 {
		t.Fatalf("the first machine ran %q, want ten components and write", ran)
	}
	r.reset()
	sameVertices(t, "a machine that shares nine of ten components",
		builds(t, b, db, "--cache-from="+cache("web"), "--cache-to=mode=max,compression=zstd,"+cache("db"), "-o", "out"),
		[]string{"[kernel+initrd] write", "[services.agent] pack"})
	blobs, _ := pulled(r.packages)
	if want := map[string]int{"slipwaybuild/slipway": frontendBlobs}; !maps.Equal(blobs, want) {
		t.Errorf("it pulled %v, want %v", blobs, want)
	}
	_, sum := pulled(r.caches)
	t.Logf("%.1f MB pulled from the shared cache", float64(sum)/1e6)

	sameVertices(t, "the same machine on a third builder",
		builds(t, c, db, "--cache-from="+cache("web"), "--cache-from="+cache("db"), "-o", "again"), nil)
	for _, name := range []string{"machine-initrd.img", "machine-kernel"} {
		sameFile(t, filepath.Join(db, "out", name), filepath.Join(db, "again", name))
	}
}
