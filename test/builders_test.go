package test

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/buildkitd"
	"github.com/slipway-build/slipway/internal/testutil/stack"
)

// Old builders, rootless builders and builders without overlayfs build the same
// bytes, even from images with devices, owners, setuid programs and hard links.
// The build reports what the builder lacks.
func TestBuilders(t *testing.T) {
	r := startRegistries(t)
	a := fresh(t, r.config)
	odd := r.push(t, a, "odd:1", `FROM debian:trixie-slim AS build
RUN mkdir -p /out/bin && mkfifo /out/pipe && chown 12345:23456 /out/pipe && \
    cp /bin/true /out/bin/true && chmod 4755 /out/bin/true && ln /out/bin/true /out/bin/same
FROM scratch
COPY --from=build /out /
`)
	nodes := r.push(t, a, "nodes:1", `FROM debian:trixie-slim AS build
RUN mkdir -p /out/dev && mknod /out/dev/disk b 7 0 && mknod /out/dev/tty c 5 0
FROM scratch
COPY --from=build /out /
`)
	// The second machine has devices, which a builder without root cannot
	// create.
	all := strings.Replace(cachedMachine, "onboot:\n", "  - "+odd+"\nonboot:\n", 1)
	plain, full := machineYAML(t, all), machineYAML(t, strings.Replace(all, "onboot:\n", "  - "+nodes+"\nonboot:\n", 1))
	build := func(d *buildkitd.Daemon, dir, folder string) string {
		t.Helper()
		cmd := d.Build(t.Context(), "--progress=plain", "--target=kernel+initrd,raw,tar", "-o", folder, "-f", "machine.yml", ".")
		cmd.Dir = dir
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v\n%s", err, stderr.String())
		}
		return stderr.String()
	}
	build(a, plain, "ordinary")
	build(a, full, "ordinary")
	for _, c := range []struct {
		name     string
		config   func(*testing.T) buildkitd.Config
		dir      string
		lacks    string
		features string // column in the table
	}{
		{name: "native", dir: full, config: func(*testing.T) buildkitd.Config { return buildkitd.Config{Snapshotter: "native"} }, features: "current"},
		{name: "rootless", dir: plain, config: rootless, lacks: "the builder lacks devices in images: it runs without root", features: "rootless"},
		{name: "oldest", dir: full, config: oldest, features: "oldest"},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := c.config(t)
			config.Mirror, config.Registries = r.config.Mirror, r.config.Registries
			d := fresh(t, config)
			out := build(d, c.dir, c.name)
			if !strings.Contains(out, c.lacks) || c.lacks == "" && strings.Contains(out, "the builder lacks") {
				t.Errorf("what the builder lacks should be %q:\n%s", c.lacks, out)
			}
			for _, name := range []string{"machine-kernel", "machine-initrd.img", "machine.raw", "machine.tar"} {
				sameFile(t, filepath.Join(c.dir, "ordinary", name), filepath.Join(c.dir, c.name, name))
			}
			if c.features != "" {
				testFeatures(t, c.features, func(dir string, args ...string) *exec.Cmd {
					cmd := d.Build(t.Context(), args...)
					cmd.Dir = dir
					return cmd
				})
			}
		})
	}
}

// The build reports what an old builder lacks if the machine would use it.
func TestBuilderLacks(t *testing.T) {
	stack.Require(t)
	d := fresh(t, oldest(t))
	dir := machineYAML(t, "init:\n  - test/layout:v1\n")
	cmd := d.Build(t.Context(), "--provenance=false", "-o", "type=oci,tar=false,dest="+filepath.Join(dir, "layout"), "-")
	cmd.Stdin = strings.NewReader("FROM scratch\nCOPY --from=slipwaybuild/sysctl:v1 / /\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd = d.Build(t.Context(), "--progress=plain", "--build-context=test/layout:v1=oci-layout://"+filepath.Join(dir, "layout"),
		"--target=tar", "-o", "out", "-f", "machine.yml", ".")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !bytes.Contains(out, []byte("the builder lacks source.imageblob: images of OCI layouts are unpacked")) {
		t.Errorf("the build does not report what the builder lacks:\n%s", out)
	}
	if files := tree(t, filepath.Join(dir, "out", "machine.tar")); files["bin/sysctl"] == "" && files["sbin/sysctl"] == "" && files["usr/sbin/sysctl"] == "" {
		t.Error("the machine lacks the image's program")
	}
}
