package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/compression"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// A peer is a program that builds the same machine as the others, in the same
// run, of the same images.
type peer struct {
	name  string
	build func(b *setup, cache string) []string // cache is that in the registry; "" for none
	reset func(ctx context.Context, b *setup) error
}

// The programs. LinuxKit is the one that the environment names.
var (
	linuxkit = peer{
		name: "linuxkit",
		build: func(b *setup, _ string) []string {
			return []string{os.Getenv("LINUXKIT"), "--quiet", "--mirror", "http://" + b.registry, "build", "--cache", b.file("linuxkit"), "--no-sbom",
				"--format", "kernel+initrd", "--dir", b.file("out"), b.file("machine.yml")}
		},
		reset: func(_ context.Context, b *setup) error {
			if err := os.RemoveAll(b.file("linuxkit")); err != nil {
				return err
			}
			return os.MkdirAll(b.file("out"), 0o755)
		},
	}
	peers = []peer{
		{
			name: "slipway",
			build: func(b *setup, cache string) []string {
				return append([]string{"env", "XDG_CACHE_HOME=" + b.file("cache"), b.slipway, "build", "--builder", b.address(), "--progress=quiet",
					"-o", b.file("out"), b.file("machine.yml"), b.file("context")}, cacheFrom(cache)...)
			},
			reset: func(ctx context.Context, b *setup) error {
				if err := os.RemoveAll(b.file("cache")); err != nil {
					return err
				}
				return b.fresh(ctx)
			},
		},
		{
			name: "buildx",
			build: func(b *setup, cache string) []string {
				return append([]string{"docker", "buildx", "build", "--builder", b.builder, "--progress=quiet", "-f", b.file("machine.yml"),
					"-o", b.file("out"), b.file("context")}, cacheFrom(cache)...)
			},
			reset: func(ctx context.Context, b *setup) error { return b.fresh(ctx) },
		},
	}
)

func cacheFrom(cache string) []string {
	if cache == "" {
		return nil
	}
	return []string{"--cache-from", "type=registry,ref=" + cache}
}

// peerCases are what each program builds, in the order of the table, with the
// goals of slipway and docker buildx as multiples of LinuxKit's time.
var peerCases = []struct {
	name            string
	slipway, buildx float64
}{
	{"cold", 0.8, 1},
	{"release-cache", 0.8, 1},
	{"registry-cache", 0.35, 0.5},
	{"service", 0.2, 0.4},
	{"unchanged", 0.05, 0.35},
	{"unchanged-locked", 0.05, 0},
}

// peerName returns the name of a case: peers/LAYERS/CORES/WHAT/PROGRAM.
func peerName(layers, cores, what, program string) string {
	return strings.Join([]string{"peers", layers, cores, what, program}, "/")
}

// cpus are the arguments of taskset.
var cpus = map[string]string{"2-cores": "0,1", "1-core": "0"}

// comparePeers measures each program with layers in one compression, on some
// cores.
func (b *setup) comparePeers(ctx context.Context, layers, cores string) error {
	programs := peers
	if os.Getenv("LINUXKIT") != "" {
		programs = append([]peer{linuxkit}, peers...)
	}
	var wanted []string
	for _, c := range peerCases {
		for _, p := range append(programs, peer{name: "plain"}) {
			wanted = append(wanted, peerName(layers, cores, c.name, p.name))
		}
	}
	if !b.wants(wanted...) {
		return nil
	}
	b.cpus = cpus[cores]
	defer func() { b.cpus = "" }()
	m, err := b.peerMachine(ctx, layers)
	if err != nil {
		return err
	}
	for _, p := range programs {
		if err := b.comparePeer(ctx, p, m, layers, cores); err != nil {
			return err
		}
	}
	return b.plainPeer(ctx, m, layers, cores)
}

func (b *setup) comparePeer(ctx context.Context, p peer, m peerMachine, layers, cores string) error {
	name := func(what string) string { return peerName(layers, cores, what, p.name) }
	build := func(cache string) func() error {
		return func() error { return b.pinned(ctx, p.build(b, cache)...) }
	}
	if err := b.yaml(m.yaml(0)); err != nil {
		return err
	}
	if err := p.reset(ctx, b); err != nil {
		return err
	}
	if err := b.time(name("cold"), build("")); err != nil {
		return err
	}
	if err := b.time(name("unchanged"), build("")); err != nil {
		return err
	}
	if err := b.writeYAML(m.yaml(1)); err != nil {
		return err
	}
	if err := b.time(name("service"), build("")); err != nil {
		return err
	}
	if p.name == linuxkit.name {
		return nil // which has no other cache, and no lock
	}
	if p.name == "slipway" {
		if err := b.unchangedLocked(ctx, name("unchanged-locked"), build("")); err != nil {
			return err
		}
	}
	if err := b.yaml(m.yaml(0)); err != nil {
		return err
	}
	cache := fmt.Sprintf("%s/slipwaybench/cache:%s", b.registry, layers)
	if err := run(ctx, "docker", "buildx", "build", "--builder", b.builder, "--progress=quiet", "-f", b.file("machine.yml"),
		"--cache-to", "type=registry,ref="+cache+",mode=max,compression=zstd", "-o", b.file("out"), b.file("context")); err != nil {
		return err
	}
	if err := b.yaml(m.yaml(0)); err != nil {
		return err
	}
	if err := p.reset(ctx, b); err != nil {
		return err
	}
	if err := b.time(name("registry-cache"), build(cache)); err != nil {
		return err
	}
	// Another machine, so that the cache has its segments but not its kernel and
	// initrd.
	released, err := b.releasedFrontend(ctx, m, cache)
	if err != nil {
		return err
	}
	text := strings.Replace(m.yaml(0), `cmdline: "`, `cmdline: "quiet `, 1)
	if err := b.yaml(text); err != nil {
		return err
	}
	if err := b.writeFile("# syntax="+released, text); err != nil {
		return err
	}
	if err := p.reset(ctx, b); err != nil {
		return err
	}
	return b.time(name("release-cache"), build(""))
}

// releasedFrontend pushes the frontend image as that of a release whose cache has
// the packages of the machine, and returns its name.
func (b *setup) releasedFrontend(ctx context.Context, m peerMachine, cache string) (string, error) {
	ref, err := name.ParseReference(cache, name.Insecure)
	if err != nil {
		return "", err
	}
	desc, err := remote.Get(ref, remote.WithContext(ctx))
	if err != nil {
		return "", err
	}
	image, err := images{registry: b.registry}.get(ctx, "slipwaybuild/slipway:1")
	if err != nil {
		return "", err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return "", err
	}
	config = config.DeepCopy()
	config.Config.Env = []string{"SLIPWAY_CACHE=" + cache + "@" + desc.Digest.String(), "SLIPWAY_CACHE_IMAGES=" + strings.Join(m.digests, ",")}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return "", err
	}
	released := b.registry + "/slipwaybench/slipway:" + m.layers
	return released, push(ctx, released, image)
}

// unchangedLocked measures an unchanged machine with a lock.
func (b *setup) unchangedLocked(ctx context.Context, name string, build func() error) error {
	lock := b.file("machine.lock.yml")
	defer os.Remove(lock)
	if err := run(ctx, b.slipway, "lock", "--builder", b.address(), "--progress=quiet", b.file("machine.yml"), b.file("context")); err != nil {
		return err
	}
	if err := build(); err != nil {
		return err
	}
	return b.time(name, build)
}

// plainPeer measures a program that only pulls the images and compresses their
// files, for runs without LinuxKit. It runs in this process, on all cores.
func (b *setup) plainPeer(ctx context.Context, m peerMachine, layers, cores string) error {
	if cores != "2-cores" {
		return nil
	}
	dir := b.file("plain")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	both := func(images ...v1.Image) func() error {
		return func() error {
			blobs, err := pull(ctx, images, dir)
			if err != nil {
				return err
			}
			return pack(blobs, "zstd")
		}
	}
	if err := b.time(peerName(layers, cores, "cold", "plain"), both(m.all...)); err != nil {
		return err
	}
	return b.time(peerName(layers, cores, "service", "plain"), both(m.service))
}

// pinned runs a program on the cores of the case.
func (b *setup) pinned(ctx context.Context, args ...string) error {
	return run(ctx, append(b.taskset(), args...)...)
}

func (b *setup) taskset() []string {
	if b.cpus == "" {
		return nil
	}
	return []string{"taskset", "-c", b.cpus}
}

// peerMachine is the machine of examples/aws.yml with the package modules. Its
// images are indexes, because LinuxKit is slow with bare manifests.
type peerMachine struct {
	text    string
	layers  string
	all     []v1.Image // in the first version
	digests []string   // of their indexes
	service v1.Image   // sshd in the second version
}

// yaml returns the machine YAML with a version of sshd.
func (m peerMachine) yaml(version int) string {
	return strings.Replace(m.text, "/sshd:"+m.layers+"-0", fmt.Sprintf("/sshd:%s-%d", m.layers, version), 1)
}

// peerMachine pushes the images of the machine with layers in a compression.
func (b *setup) peerMachine(ctx context.Context, layers string) (peerMachine, error) {
	if m, ok := b.machines[layers]; ok {
		return m, nil
	}
	m := peerMachine{layers: layers}
	text, err := os.ReadFile("examples/aws.yml")
	if err != nil {
		return m, err
	}
	m.text = regexp.MustCompile(`(?m)^ *#.*\n`).ReplaceAllString(string(text), "")
	// LinuxKit does not know all metadata.
	if before, after, ok := strings.Cut(m.text, "\nfiles:"); ok {
		_, after, _ = strings.Cut(after, "\ntrust:")
		m.text = before + "\ntrust:" + after
	}
	const last = "  - slipwaybuild/ca-certificates:v1\n"
	m.text = strings.Replace(m.text, last, last+"  - slipwaybuild/modules:v1\n", 1)
	pushed := map[string]bool{}
	for _, ref := range regexp.MustCompile(`slipwaybuild/\S+`).FindAllString(m.text, -1) {
		pkg := strings.TrimSuffix(strings.TrimPrefix(ref, "slipwaybuild/"), ":v1")
		if pushed[pkg] {
			continue
		}
		pushed[pkg] = true
		image, err := images{registry: b.registry}.get(ctx, ref)
		if err != nil {
			return m, err
		}
		tag := layers
		if pkg == "sshd" {
			tag += "-0"
			changed, err := version(image, 1)
			if err == nil {
				m.service, _, err = b.pushPeer(ctx, changed, "sshd", layers, layers+"-1")
			}
			if err != nil {
				return m, err
			}
		}
		image, digest, err := b.pushPeer(ctx, image, pkg, layers, tag)
		if err != nil {
			return m, err
		}
		m.all, m.digests = append(m.all, image), append(m.digests, digest)
		m.text = regexp.MustCompile(regexp.QuoteMeta(ref)+`\b`).ReplaceAllString(m.text, b.registry+"/slipwaybench/"+pkg+":"+tag)
	}
	b.machines[layers] = m
	return m, nil
}

// pushPeer pushes an image with layers in a compression, as an index. It returns
// the pushed image and the digest of the index.
func (b *setup) pushPeer(ctx context.Context, image v1.Image, pkg, layers, tag string) (v1.Image, string, error) {
	image, err := recompress(image, layers)
	if err != nil {
		return nil, "", err
	}
	index := mutate.IndexMediaType(mutate.AppendManifests(empty.Index, mutate.IndexAddendum{
		Add:        image,
		Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}},
	}), types.OCIImageIndex)
	ref, err := name.ParseReference(b.registry+"/slipwaybench/"+pkg+":"+tag, name.Insecure)
	if err != nil {
		return nil, "", err
	}
	if err := remote.WriteIndex(ref, index, remote.WithContext(ctx)); err != nil {
		return nil, "", err
	}
	digest, err := index.Digest()
	if err != nil {
		return nil, "", err
	}
	image, err = remote.Image(ref, remote.WithContext(ctx), remote.WithPlatform(v1.Platform{OS: "linux", Architecture: "amd64"}))
	return image, digest.String(), err
}

// recompress returns an image with its layers in a compression.
func recompress(image v1.Image, algorithm string) (v1.Image, error) {
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	old, err := image.Layers()
	if err != nil {
		return nil, err
	}
	options := []tarball.LayerOption{tarball.WithMediaType(types.OCILayer)}
	if algorithm == "zstd" {
		options = []tarball.LayerOption{tarball.WithMediaType(types.OCILayerZStd), tarball.WithCompression(compression.ZStd)}
	}
	var layers []v1.Layer
	for _, l := range old {
		r, err := l.Uncompressed()
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(r)
		r.Close()
		if err != nil {
			return nil, err
		}
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }, options...)
		if err != nil {
			return nil, err
		}
		layers = append(layers, layer)
	}
	config = config.DeepCopy()
	config.History, config.RootFS = nil, v1.RootFS{Type: "layers"}
	base, err := mutate.ConfigFile(mutate.MediaType(empty.Image, types.OCIManifestSchema1), config)
	if err != nil {
		return nil, err
	}
	return mutate.AppendLayers(base, layers...)
}

// writeYAML writes the machine YAML and keeps the output of the build before.
func (b *setup) writeYAML(text string) error {
	return b.writeFile("# syntax=slipwaybuild/slipway:1", text)
}

func (b *setup) writeFile(syntax, text string) error {
	return os.WriteFile(filepath.Join(b.dir, "machine.yml"), []byte(syntax+"\n# check=skip=all\n"+text), 0o644)
}

// printPeers prints the times of slipway and docker buildx as multiples of
// LinuxKit's, or of the plain program's, and whether the goals are met.
func printPeers(w io.Writer, all map[string]summary) {
	const row = "%s\t%s\t%s\t%s\t%s\t\n"
	title := false
	for _, layers := range compressions {
		for _, cores := range []string{"2-cores", "1-core"} {
			for _, c := range peerCases {
				if !title {
					fmt.Fprintf(w, "\n"+row, "ratios of times", "to", "slipway", "buildx", "processor")
					title = true
				}
				base, name, ok := baseline(all, layers, cores, c.name)
				if !ok {
					continue
				}
				ratio := func(program string, goal float64) string {
					s, ok := all[peerName(layers, cores, c.name, program)]
					if !ok {
						return "-"
					}
					text := fmt.Sprintf("%.2f", s.Median/base.Median)
					switch {
					case name == "plain" || goal == 0:
						return text
					case s.Median/base.Median <= goal:
						return text + fmt.Sprintf(" (met: %.2f)", goal)
					}
					return text + fmt.Sprintf(" (goal: %.2f)", goal)
				}
				processor := all[peerName(layers, cores, c.name, "slipway")].Processor / base.Processor
				fmt.Fprintf(w, row, strings.Join([]string{layers, cores, c.name}, "/"), fmt.Sprintf("%s %.2f s", name, base.Median),
					ratio("slipway", c.slipway), ratio("buildx", c.buildx), fmt.Sprintf("%.2f", processor))
			}
		}
	}
}

// baseline returns what a case is compared with, and the name of its program.
func baseline(all map[string]summary, layers, cores, what string) (base summary, name string, ok bool) {
	same := map[string]string{"registry-cache": "cold", "release-cache": "cold", "unchanged-locked": "unchanged"} // LinuxKit has neither
	if other, ok := same[what]; ok {
		what = other
	}
	for _, name := range []string{"linuxkit", "plain"} {
		if base, ok := all[peerName(layers, cores, what, name)]; ok {
			return base, name, true
		}
	}
	return summary{}, "", false
}
