package frontend

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/apicaps"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/internal/gatewaytest"
)

// platformsOf returns the platforms that a result names.
func platformsOf(t *testing.T, metadata map[string][]byte) []string {
	t.Helper()
	var all exptypes.Platforms
	if err := json.Unmarshal(metadata[exptypes.ExporterPlatformsKey], &all); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, p := range all.Platforms {
		out = append(out, p.ID)
	}
	return out
}

// Without --platform, the machine has the platform of the builder, not that of
// the process that the frontend runs in.
func TestPlatformOfBuilder(t *testing.T) {
	g := newGateway(t, twoImages)
	g.Platform = "linux/arm64"
	res := mustBuild(t, g)
	if got := platformsOf(t, res.Metadata); !slices.Equal(got, []string{"linux/arm64"}) {
		t.Errorf("platforms %q", got)
	}
	if _, err := res.SingleRef(); err != nil {
		t.Error(err)
	}
	var config ocispecs.Image
	if err := json.Unmarshal(res.Metadata[exptypes.ExporterImageConfigKey], &config); err != nil || config.Architecture != "arm64" || config.Created == nil {
		t.Errorf("image configuration %+v, %v", config, err)
	}
	if got := flag(onlyGraph(t, g).exec("/slipway-exporter write"), "--arch"); !slices.Equal(got, []string{"arm64"}) {
		t.Errorf("architecture %q", got)
	}
}

// The configuration has a history for each layer, with the epoch. A Docker Engine
// with the classic image store would add the time of the build otherwise.
func TestHistory(t *testing.T) {
	g := newGateway(t, twoImages)
	g.Opts["target"] = "tar,kernel+initrd"
	g.Opts["build-arg:SOURCE_DATE_EPOCH"] = "1000000000"
	var config ocispecs.Image
	if err := json.Unmarshal(mustBuild(t, g).Metadata[exptypes.ExporterImageConfigKey], &config); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, h := range config.History {
		got = append(got, h.Created.Format(time.RFC3339)+" "+h.CreatedBy)
	}
	if want := []string{"2001-09-09T01:46:40Z slipway --target tar", "2001-09-09T01:46:40Z slipway --target kernel+initrd"}; !slices.Equal(got, want) {
		t.Errorf("history %q, want %q", got, want)
	}
}

func TestSeveralPlatforms(t *testing.T) {
	g := newGateway(t, twoImages)
	g.Opts["platform"] = "linux/amd64,linux/arm64"
	g.Opts["build-arg:SIZE"] = "1G" // a warning
	res := mustBuild(t, g)
	if got := platformsOf(t, res.Metadata); !slices.Equal(got, []string{"linux/amd64", "linux/arm64"}) {
		t.Errorf("platforms %q", got)
	}
	for _, p := range []string{"linux/amd64", "linux/arm64"} {
		if ref, ok := res.FindRef(p); !ok || ref == nil {
			t.Errorf("no result for %s", p)
		}
	}
	all := graphs(t, g)
	if len(all) != 2 {
		t.Fatalf("%d graphs", len(all))
	}
	for _, graph := range all {
		arch := flag(graph.exec("/slipway-exporter write"), "--arch")[0]
		for _, name := range graph.names {
			if strings.Contains(name, "] pack ") && !strings.HasPrefix(name, "[linux/"+arch+" ") {
				t.Errorf("vertex %q of %s", name, arch)
			}
		}
	}
	if got := warnings(g); len(got) != 1 {
		t.Errorf("warnings %q, want one for both platforms", got)
	}
}

func TestFormatForPlatform(t *testing.T) {
	g := newGateway(t, twoImages)
	g.Opts["platform"] = "linux/arm64"
	g.Opts["target"] = "raw-bios"
	if _, err := Build(t.Context(), g); err == nil || !strings.Contains(err.Error(), "--target: raw-bios") {
		t.Errorf("got %v", err)
	}
}

func TestSeveralFormats(t *testing.T) {
	for _, merge := range []bool{true, false} {
		g := newGateway(t, twoImages)
		g.Opts["target"] = "kernel+initrd,tar"
		if !merge {
			g.Missing = []apicaps.CapID{pb.CapMergeOp}
		}
		mustBuild(t, g)
		graph := onlyGraph(t, g)
		if merged := slices.ContainsFunc(graph.ops, func(op *pb.Op) bool { return op.GetMerge() != nil }); merged != merge {
			t.Errorf("merged %v, want %v", merged, merge)
		}
		if got := graph.execs("/slipway-exporter write"); len(got) != 2 {
			t.Errorf("writes %q", got)
		}
		if got := warnings(g); len(got) == 0 != merge {
			t.Errorf("merge %v: warnings %q", merge, got)
		}
	}
}

// The entrypoint of the container image is the init that the machine has.
func TestEntrypoint(t *testing.T) {
	for _, c := range []struct {
		file string
		want []string
	}{{"bin/rc.init", []string{"/bin/rc.init"}}, {"sbin/init", []string{"/sbin/init"}}, {"bin/sh", nil}} {
		g := newGateway(t, twoImages)
		g.Opts["target"] = "docker"
		// The gateway copies the archive instead of unpacking it.
		g.Run = func(*pb.ExecOp) (gatewaytest.Files, error) { return gatewaytest.Files{"aws.tar/" + c.file: ""}, nil }
		res := mustBuild(t, g)
		var config ocispecs.Image
		if err := json.Unmarshal(res.Metadata[exptypes.ExporterImageConfigKey], &config); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(config.Config.Entrypoint, c.want) {
			t.Errorf("%s: entrypoint %q", c.file, config.Config.Entrypoint)
		}
	}
}

func TestOptionsReachTheGraph(t *testing.T) {
	g := newGateway(t, twoImages)
	for name, value := range map[string]string{"NAME": "vm", "SIZE": "64M", "COMPRESSION": "gzip:9", "SOURCE_DATE_EPOCH": "1700000000"} {
		g.Opts["build-arg:"+name] = value
	}
	g.Opts["target"] = "raw"
	g.Opts["no-cache"] = "services.sshd"
	res := mustBuild(t, g)
	graph := onlyGraph(t, g)
	write := graph.exec("/slipway-exporter write")
	for name, want := range map[string]string{"--name": "vm", "--size": "67108864", "--epoch": "1700000000", "--format": "raw"} {
		if got := flag(write, name); !slices.Equal(got, []string{want}) {
			t.Errorf("%s %q, want %s", name, got, want)
		}
	}
	if got := flag(graph.exec("/slipway-packer pack"), "--compression"); !slices.Equal(got, []string{"gzip:9"}) {
		t.Errorf("compression %q", got)
	}
	if len(graph.noCache) != 1 || !strings.Contains(graph.noCache[0], "[services.sshd] pack") {
		t.Errorf("without cache: %q", graph.noCache)
	}
	if got := string(res.Metadata["source.date.epoch"]); got != "1700000000" {
		t.Errorf("epoch %q", got)
	}
}

func TestOptionErrors(t *testing.T) {
	for name, c := range map[string]struct{ option, value, want string }{
		"target":    {"target", "rawr", `--target: unknown format "rawr" (did you mean "raw"?)`},
		"size":      {"build-arg:SIZE", "big", "--build-arg SIZE=big: not a size"},
		"directive": {"build-arg:BUILDKIT_DOCKERFILE_CHECK", "skip", "BUILDKIT_DOCKERFILE_CHECK"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGateway(t, twoImages)
			g.Opts[c.option] = c.value
			_, err := Build(t.Context(), g)
			wantError(t, err, c.want)
			if got := graphs(t, g); len(got) > 0 {
				t.Error("something is built")
			}
		})
	}
}
