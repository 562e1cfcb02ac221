package frontend

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/apicaps"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/internal/gatewaytest"
	"github.com/slipway-build/slipway/machine"
)

const twoImages = "init:\n  - slipwaybuild/init:v1\nservices:\n  - name: sshd\n    image: slipwaybuild/sshd:v1\n"

// pinned returns the identifier of an image by its digest.
func pinned(g *gatewaytest.Gateway, name string) string {
	repository, _, _ := strings.Cut(name, ":")
	return "docker-image://docker.io/" + repository + "@" + g.Images["docker.io/"+name].Digest.String()
}

func TestImagesArePinned(t *testing.T) {
	g := newGateway(t, twoImages)
	mustBuild(t, g)
	want := []string{pinned(g, "slipwaybuild/init:v1"), pinned(g, "slipwaybuild/slipway:1"), pinned(g, "slipwaybuild/sshd:v1")}
	if got := onlyGraph(t, g).sources(); !slices.Equal(got, want) {
		t.Errorf("sources %q, want %q", got, want)
	}
	if got := warnings(g); len(got) > 0 {
		t.Errorf("warnings: %q", got)
	}
}

func TestImageErrors(t *testing.T) {
	g := newGateway(t, "kernel:\n  image: slipwaybuild/krenel:v1\ninit:\n  - slipwaybuild/init:v1\n  - slipwaybuild/nonsuch:v1\n")
	_, err := Build(t.Context(), g)
	wantError(t, err, "image slipwaybuild/nonsuch:v1: docker.io/slipwaybuild/nonsuch:v1: not found",
		"aws.yml:2:image: slipwaybuild/krenel:v1", "aws.yml:5:- slipwaybuild/nonsuch:v1")
}

func TestImageErrorInOverlay(t *testing.T) {
	g := newGateway(t, "init:\n  - slipwaybuild/init:v1\n")
	g.Locals["dockerfile"]["more.yml"] = "init:\n  - slipwaybuild/nonsuch:v1\n"
	g.Opts["build-arg:OVERLAYS"] = "more.yml"
	_, err := Build(t.Context(), g)
	wantError(t, err, "nonsuch:v1: not found", "more.yml:2:- slipwaybuild/nonsuch:v1")

	g = newGateway(t, "init: []\n")
	g.Opts["build-arg:OVERLAYS"] = "none.yml"
	_, err = Build(t.Context(), g)
	wantError(t, err, "--build-arg OVERLAYS: read none.yml")
}

// An image for other platforms is an error, which lists them. BuildKit notices it
// only for images with an index.
func TestImageForOtherPlatform(t *testing.T) {
	config := ocispecs.ImageConfig{Cmd: []string{"sshd"}}
	const name = "docker.io/slipwaybuild/sshd:v1"
	for _, c := range []struct {
		name, platform string // platform of the machine; empty: of the builder
		add            func(*gatewaytest.Gateway)
		want           string // empty: it is the right one
	}{
		{"an index", "linux/arm64", func(g *gatewaytest.Gateway) {
			g.Images[name] = gatewaytest.NewImage("sshd", config, "linux/amd64", "linux/s390x")
		}, "linux/arm64, but for linux/amd64, linux/s390x"},
		{"an index for 32 bits", "linux/arm64", func(g *gatewaytest.Gateway) {
			g.Images[name] = gatewaytest.NewImage("sshd", config, "linux/arm/v7")
		}, "linux/arm64, but for linux/arm/v7"},
		{"a manifest", "linux/arm64", func(g *gatewaytest.Gateway) {
			g.Images[name] = gatewaytest.NewManifest("sshd", config, "linux/amd64")
		}, "linux/arm64, but for linux/amd64"},
		{"Windows", "", func(g *gatewaytest.Gateway) {
			g.Images[name] = gatewaytest.NewManifest("sshd", config, "windows/amd64")
		}, "linux/amd64, but for windows/amd64"},
		{"a newer variant", "", func(g *gatewaytest.Gateway) {
			g.Images[name] = gatewaytest.NewManifest("sshd", config, "linux/amd64/v3")
		}, "linux/amd64, but for linux/amd64/v3"},
		{"an older variant", "linux/amd64/v3", func(g *gatewaytest.Gateway) {
			g.Images[name] = gatewaytest.NewManifest("sshd", config, "linux/amd64")
		}, ""},
		{"a context with an image", "linux/arm64", func(g *gatewaytest.Gateway) {
			g.Images["docker.io/test/own:v1"] = gatewaytest.NewManifest("own", config, "linux/amd64")
			g.Opts["context:slipwaybuild/sshd:v1"] = "docker-image://test/own:v1"
		}, "linux/arm64, but for linux/amd64"},
		{"an OCI layout", "linux/arm64", func(g *gatewaytest.Gateway) {
			g.Layouts["store"] = gatewaytest.NewManifest("own", config, "linux/amd64")
			g.Opts["context:slipwaybuild/sshd:v1"] = "oci-layout://store@" + g.Layouts["store"].Digest.String()
		}, "linux/arm64, but for linux/amd64"},
		{"an OCI layout with an index", "linux/arm64", func(g *gatewaytest.Gateway) {
			g.Layouts["store"] = gatewaytest.NewImage("own", config, "linux/amd64", "linux/riscv64")
			g.Opts["context:slipwaybuild/sshd:v1"] = "oci-layout://store@" + g.Layouts["store"].Digest.String()
		}, "linux/arm64, but for linux/amd64, linux/riscv64"},
		{"the image store of an engine", "linux/arm64", func(g *gatewaytest.Gateway) {
			delete(g.Images, name)
			g.Classic[name] = gatewaytest.NewManifest("sshd", config, "linux/amd64")
		}, "linux/arm64, but for linux/amd64"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, request := range []string{"", "frontend.lint", "frontend.machine.plan", LockRequest} {
				g := newGateway(t, twoImages)
				c.add(g)
				if c.platform != "" {
					g.Opts["platform"] = c.platform
				}
				want := "image slipwaybuild/sshd:v1: does not exist for " + c.want
				if request != "" {
					g.Opts["requestid"] = request
				}
				res, err := Build(t.Context(), g)
				replaced := slices.ContainsFunc(slices.Collect(maps.Keys(g.Opts)), func(o string) bool { return strings.HasPrefix(o, "context:") })
				switch {
				case c.want == "" || request == LockRequest && replaced: // which is not in a lock
					if err != nil {
						t.Errorf("%s: %v", request, err)
					}
				case request == "frontend.lint":
					if err != nil {
						t.Fatal(err)
					}
					if text := string(res.Metadata["result.json"]); !strings.Contains(text, want) || !strings.Contains(text, `"line": 5`) {
						t.Errorf("%s: %s lacks %q", request, text, want)
					}
				default:
					wantError(t, err, want, "aws.yml:5:image: slipwaybuild/sshd:v1")
				}
			}
		})
	}
}

// All platforms of a request are checked.
func TestCheckOfAllPlatforms(t *testing.T) {
	g := newGateway(t, twoImages)
	g.Images["docker.io/slipwaybuild/sshd:v1"] = gatewaytest.NewImage("sshd", ocispecs.ImageConfig{Cmd: []string{"sshd"}}, "linux/amd64")
	g.Opts["platform"] = "linux/amd64,linux/arm64"
	g.Opts["requestid"] = "frontend.lint"
	if text := string(mustBuild(t, g).Metadata["result.json"]); !strings.Contains(text, "does not exist for linux/arm64, but for linux/amd64") {
		t.Errorf("no error in %s", text)
	}
}

func TestMachineIsLinux(t *testing.T) {
	g := newGateway(t, twoImages)
	g.Opts["platform"] = "windows/amd64"
	_, err := Build(t.Context(), g)
	wantError(t, err, "--platform windows/amd64: a machine runs Linux, for example linux/amd64")
}

// A Docker Engine with the classic image store knows no digest of the images that
// it has. Its image is used, as by FROM in a Dockerfile.
func TestClassicStore(t *testing.T) {
	g := newGateway(t, twoImages)
	const name = "docker.io/slipwaybuild/sshd:v1"
	delete(g.Images, name)
	g.Classic[name] = gatewaytest.NewManifest("sshd", ocispecs.ImageConfig{Cmd: []string{"sshd"}}, "linux/amd64")
	g.Opts["attest:sbom"] = ""
	mustBuild(t, g)
	for _, graph := range graphs(t, g) {
		for _, op := range graph.ops {
			if src := op.GetSource(); src != nil && strings.Contains(src.Identifier, "sshd") && src.Identifier != "docker-image://"+name {
				t.Errorf("source %q", src.Identifier)
			}
		}
		if spec := graph.mkfiles()["machine.json"]; strings.Contains(spec, `sshd:v1"`) &&
			!strings.Contains(spec, `"url":"pkg:oci/sshd?repository_url=docker.io%2Fslipwaybuild%2Fsshd\u0026tag=v1","scan"`) {
			t.Errorf("SBOM %s", spec)
		}
	}

	g.Opts["requestid"] = "frontend.machine.plan"
	if plan := string(mustBuild(t, g).Metadata["result.txt"]); strings.Contains(plan, "sshd:v1@") {
		t.Errorf("the plan has a digest:\n%s", plan)
	}
}

// With --pull, BuildKit asks the registry for every image, the frontend's too.
func TestResolveMode(t *testing.T) {
	for _, mode := range []string{"", "pull"} {
		g := newGateway(t, twoImages)
		g.Opts["image-resolve-mode"] = mode
		mustBuild(t, g)
		resolved := g.Resolved()
		if len(resolved) != 3 {
			t.Errorf("%d images are resolved, want 3", len(resolved))
		}
		for _, r := range resolved {
			if r.ImageOpt.ResolveMode != mode {
				t.Errorf("%s: resolve mode %q, want %q", r.LogName, r.ImageOpt.ResolveMode, mode)
			}
		}
	}
}

func TestSourcePolicy(t *testing.T) {
	const id = "docker-image://docker.io/slipwaybuild/sshd:v1"
	g := newGateway(t, twoImages)
	g.Policy = map[string]string{id: "docker-image://docker.io/slipwaybuild/rngd:v1"}
	mustBuild(t, g)
	if got := onlyGraph(t, g).sources(); !slices.Contains(got, pinned(g, "slipwaybuild/rngd:v1")) {
		t.Errorf("sources %q lack the image of the policy", got)
	}
	g = newGateway(t, twoImages)
	g.Policy = map[string]string{id: "https://example.com/"}
	_, err := Build(t.Context(), g)
	wantError(t, err, "a source policy replaces it with https://example.com/, which is not an image", "aws.yml:5:image: slipwaybuild/sshd:v1")
}

func TestNamedContexts(t *testing.T) {
	t.Run("image", func(t *testing.T) {
		g := newGateway(t, twoImages)
		g.Opts["context:slipwaybuild/sshd:v1"] = "docker-image://slipwaybuild/rngd:v1"
		mustBuild(t, g)
		got := onlyGraph(t, g).sources()
		if !slices.Contains(got, pinned(g, "slipwaybuild/rngd:v1")) || slices.Contains(got, pinned(g, "slipwaybuild/sshd:v1")) {
			t.Errorf("sources %q", got)
		}
	})
	t.Run("image of one platform", func(t *testing.T) {
		g := newGateway(t, twoImages)
		g.Opts["context:slipwaybuild/sshd:v1::linux/arm64"] = "docker-image://slipwaybuild/rngd:v1"
		g.Opts["platform"] = "linux/amd64,linux/arm64"
		mustBuild(t, g)
		for _, graph := range graphs(t, g) {
			sources := graph.sources()
			arm := slices.Contains(flag(graph.exec("/slipway-exporter write"), "--arch"), "arm64")
			if slices.Contains(sources, pinned(g, "slipwaybuild/rngd:v1")) != arm {
				t.Errorf("arm64 %v: sources %q", arm, sources)
			}
		}
	})
	t.Run("missing image", func(t *testing.T) {
		g := newGateway(t, twoImages)
		g.Opts["context:slipwaybuild/sshd:v1"] = "docker-image://slipwaybuild/nonsuch:v1"
		_, err := Build(t.Context(), g)
		wantError(t, err, "image slipwaybuild/sshd:v1: docker.io/slipwaybuild/nonsuch:v1: not found", "aws.yml:5:image: slipwaybuild/sshd:v1")
	})
	t.Run("folder", func(t *testing.T) {
		g := newGateway(t, "init:\n  - slipwaybuild/init:v1\n")
		g.Locals["own"] = gatewaytest.Files{"bin/sh": "sh"}
		g.Opts["context:slipwaybuild/init:v1"] = "local:own"
		mustBuild(t, g)
		if got := onlyGraph(t, g).sources(); !slices.Contains(got, "local://own") {
			t.Errorf("sources %q", got)
		}
	})
	t.Run("tools", func(t *testing.T) {
		g := newGateway(t, twoImages)
		g.Locals["tools"] = gatewaytest.Files{}
		g.Opts["context:slipway-tools"] = "local:tools"
		mustBuild(t, g)
		if got := onlyGraph(t, g).sources(); !slices.Contains(got, "local://tools") || slices.Contains(got, pinned(g, "slipwaybuild/slipway:1")) {
			t.Errorf("sources %q", got)
		}
	})
}

// addLayout replaces an image by an OCI layout of the client.
func addLayout(g *gatewaytest.Gateway, name string) *gatewaytest.Image {
	image := gatewaytest.NewImage("layout", ocispecs.ImageConfig{Cmd: []string{"/bin/layout"}})
	g.Layouts["store"] = image
	g.Opts["context:"+name] = "oci-layout://store@" + image.Digest.String()
	return image
}

// The packer reads the layers of an OCI layout, of the machine's platform.
func TestOCILayout(t *testing.T) {
	g := newGateway(t, twoImages)
	image := addLayout(g, "slipwaybuild/sshd:v1")
	g.Opts["platform"] = "linux/arm64"
	mustBuild(t, g)
	want := "oci-layout+blob://layout.invalid/store@" + image.Layer("linux/arm64").String()
	if got := onlyGraph(t, g).sources(); !slices.Contains(got, want) {
		t.Errorf("sources %q, want %q", got, want)
	}
}

// A builder that cannot serve blobs unpacks the layout, and the user learns why
// that takes longer.
func TestOCILayoutOnOldBuilder(t *testing.T) {
	g := newGateway(t, strings.Replace(twoImages, "sshd:v1\n", "sshd:v1\n    uid: 33\n", 1))
	addLayout(g, "slipwaybuild/sshd:v1")
	g.Missing = []apicaps.CapID{pb.CapSourceImageBlob}
	mustBuild(t, g)
	if got := onlyGraph(t, g).sources(); !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "oci-layout://") }) {
		t.Errorf("sources %q lack the unpacked layout", got)
	}
	if got := warnings(g); len(got) != 1 || !strings.HasPrefix(got[0], "the builder lacks source.imageblob: images of OCI layouts are unpacked") {
		t.Errorf("warnings %q", got)
	}
}

// The builder says whether it keeps the devices of images that it unpacks, and not
// the process of the frontend.
func TestDevices(t *testing.T) {
	for _, c := range []struct {
		name     string
		rootless bool
		set      func(*gatewaytest.Gateway)
		warns    bool
	}{
		{"root", false, nil, false},
		{"rootless", true, nil, true},
		{"only layers", true, func(g *gatewaytest.Gateway) {
			image := addLayout(g, "slipwaybuild/init:v1")
			g.Opts["context:slipwaybuild/sshd:v1"] = "oci-layout://store@" + image.Digest.String()
		}, false},
	} {
		g := newGateway(t, twoImages)
		g.Rootless = c.rootless
		if c.set != nil {
			c.set(g)
		}
		mustBuild(t, g)
		got := warnings(g)
		if warns := len(got) == 1 && strings.HasPrefix(got[0], "the builder lacks devices in images: it runs without root"); warns != c.warns || len(got) > 1 {
			t.Errorf("%s: warnings %q", c.name, got)
		}
	}
}

// A Docker Engine with the classic image store has no source for OCI layouts.
func TestOCILayoutOnClassicStore(t *testing.T) {
	g := newGateway(t, twoImages)
	addLayout(g, "slipwaybuild/sshd:v1")
	g.Missing = []apicaps.CapID{pb.CapSourceOCILayout}
	_, err := Build(t.Context(), g)
	wantError(t, err, "image slipwaybuild/sshd:v1: this builder cannot read OCI layouts, for example a Docker Engine with the classic image store: enable the containerd image store",
		"aws.yml:5:image: slipwaybuild/sshd:v1")
}

func layoutYAML(image, platforms string) string {
	return "volumes:\n  - name: images\n    image: " + image + "\n    format: oci\n    platforms: [" + platforms + "]\n"
}

// A volume can hold an OCI layout of the client as it is.
func TestLayoutAsLayout(t *testing.T) {
	g := newGateway(t, layoutYAML("slipwaybuild/sshd:v1", "linux/arm64"))
	image := addLayout(g, "slipwaybuild/sshd:v1")
	g.Opts["attest:sbom"] = ""
	mustBuild(t, g)
	graph := graphs(t, g)[0]
	args := graph.exec("/slipway-packer layout")
	if got := flag(args, "--platform"); !slices.Equal(got, []string{"linux/arm64"}) {
		t.Errorf("platforms %q", got)
	}
	if got := flag(args, "--blob"); len(got) != 3 || !slices.Contains(got, "/blobs/"+image.Layer("linux/arm64").Encoded()) {
		t.Errorf("blobs %q, want manifest, configuration and layer", got)
	}
	if spec := graphs(t, g)[1].mkfiles()["machine.json"]; !strings.Contains(spec, image.Digest.String()) {
		t.Errorf("the SBOM lacks the digest: %s", spec)
	}

	g = newGateway(t, layoutYAML("slipwaybuild/sshd:v1", "linux/s390x"))
	addLayout(g, "slipwaybuild/sshd:v1")
	_, err := Build(t.Context(), g)
	wantError(t, err, "image docker.io/slipwaybuild/sshd:v1: does not exist for linux/s390x, but for linux/amd64, linux/arm64", "aws.yml:3:image: slipwaybuild/sshd:v1")

	for platform, want := range map[string]string{"linux/amd64": "", "linux/arm64": "does not exist for linux/arm64, but for linux/amd64"} {
		g = newGateway(t, layoutYAML("slipwaybuild/sshd:v1", platform))
		g.Layouts["store"] = gatewaytest.NewManifest("own", ocispecs.ImageConfig{}, "linux/amd64")
		g.Opts["context:slipwaybuild/sshd:v1"] = "oci-layout://store@" + g.Layouts["store"].Digest.String()
		if want != "" {
			_, err := Build(t.Context(), g)
			wantError(t, err, want, "aws.yml:3:image: slipwaybuild/sshd:v1")
			continue
		}
		mustBuild(t, g)
		if got := flag(onlyGraph(t, g).exec("/slipway-packer layout"), "--blob"); len(got) != 2 {
			t.Errorf("blobs %q, want configuration and layer", got)
		}
		if got := warnings(g); len(got) > 0 {
			t.Errorf("warnings %q", got)
		}
	}

	g = newGateway(t, layoutYAML("slipwaybuild/sshd:v1", "linux/amd64"))
	addLayout(g, "slipwaybuild/sshd:v1")
	g.Missing = []apicaps.CapID{pb.CapSourceImageBlob}
	_, err = Build(t.Context(), g)
	wantError(t, err, "the builder cannot read the blobs of an OCI layout", "aws.yml:3:image: slipwaybuild/sshd:v1")
}

// An image of a registry becomes an OCI layout of its files: registries do not
// serve manifests to a frontend.
func TestImageAsLayout(t *testing.T) {
	const name = "docker.io/slipwaybuild/sshd:v1"
	for _, c := range []struct {
		platforms string // of the volume
		add       func(*gatewaytest.Gateway)
		want      []string // platforms of the configurations
	}{
		{"linux/arm64", nil, []string{"arm64"}},
		{"linux/arm64, linux/amd64", nil, []string{"amd64", "arm64"}},
		{"", nil, []string{"amd64", "arm64"}},
		{"", func(g *gatewaytest.Gateway) {
			g.Images[name] = gatewaytest.NewManifest("sshd", ocispecs.ImageConfig{}, "linux/s390x")
		}, []string{"s390x"}},
		{"", func(g *gatewaytest.Gateway) {
			g.Locals["own"] = gatewaytest.Files{"text": "own"}
			g.Opts["context:slipwaybuild/sshd:v1"] = "local:own"
		}, []string{"amd64"}},
	} {
		g := newGateway(t, layoutYAML("slipwaybuild/sshd:v1", c.platforms))
		if c.add != nil {
			c.add(g)
		}
		g.Missing = []apicaps.CapID{pb.CapSourceImageBlob, pb.CapSourceOCILayout} // not required
		mustBuild(t, g)
		graph := onlyGraph(t, g)
		var got []string
		for _, op := range graph.ops {
			for _, a := range op.GetFile().GetActions() {
				if f := a.GetMkfile(); f != nil && f.Path == "/config.json" {
					var config ocispecs.Image
					if err := json.Unmarshal(f.Data, &config); err != nil {
						t.Fatal(err)
					}
					got = append(got, config.Architecture)
				}
			}
		}
		slices.Sort(got)
		if args := graph.exec("/slipway-packer repack"); !slices.Equal(got, c.want) || len(flag(args, "--image")) != len(c.want) || len(flag(args, "--config")) != len(c.want) {
			t.Errorf("platforms [%s]: configurations for %q, want %q; %q", c.platforms, got, c.want, args)
		}
	}

	g := newGateway(t, layoutYAML("slipwaybuild/sshd:v1", "linux/s390x"))
	_, err := Build(t.Context(), g)
	wantError(t, err, "image docker.io/slipwaybuild/sshd:v1: does not exist for linux/s390x, but for linux/amd64, linux/arm64", "aws.yml:3:image: slipwaybuild/sshd:v1")
	g.Opts["requestid"] = "frontend.lint"
	if text := string(mustBuild(t, g).Metadata["result.json"]); !strings.Contains(text, "does not exist for linux/s390x, but for linux/amd64, linux/arm64") {
		t.Errorf("the check finds nothing: %s", text)
	}

	pinned := "slipwaybuild/sshd:v1@" + g.Images[name].Digest.String()
	g = newGateway(t, layoutYAML(pinned, "linux/amd64"))
	_, err = Build(t.Context(), g)
	wantError(t, err, "format oci cannot keep the digest of an image of a registry", "aws.yml:3:image: "+pinned)
}

const packageYAML = "services:\n  - name: hello\n    image: \"@pkg:pkg/hello\"\n"

func TestPackageFolder(t *testing.T) {
	g := newGateway(t, packageYAML)
	g.Locals["context"] = gatewaytest.Files{
		"pkg/hello/build.yml":  "image: hello\nbuildArgs:\n  - GREETING=hi\nextra-sources:\n  - ../common:share\nconfig:\n  capabilities: [CAP_SYS_TIME]\n",
		"pkg/hello/Dockerfile": "FROM scratch\n",
		"pkg/common/file":      "common",
		"secret":               "not part of the package",
	}
	built := 0
	g.Dockerfile = func(opts map[string]string, context gatewaytest.Files) (*ocispecs.Image, error) {
		built++
		if opts["build-arg:GREETING"] != "hi" || opts["platform"] != "linux/amd64" || opts["force-network-mode"] != "none" {
			t.Errorf("options %q", opts)
		}
		if _, ok := opts["no-cache"]; ok {
			t.Error("the cache is off")
		}
		if context["share/file"] != "common" || context["secret"] != "" {
			t.Errorf("context %q", context)
		}
		return &ocispecs.Image{Config: ocispecs.ImageConfig{Cmd: []string{"/bin/hello"}}}, nil
	}
	mustBuild(t, g)
	if built != 1 {
		t.Errorf("built %d times", built)
	}

	// The config of build.yml acts as the image's label.
	g.Opts["requestid"] = "frontend.machine.plan"
	if plan := string(mustBuild(t, g).Metadata["result.json"]); !strings.Contains(plan, "CAP_SYS_TIME") {
		t.Errorf("the plan lacks the capability:\n%s", plan)
	}
}

func TestPackageFolderWithoutCache(t *testing.T) {
	for _, c := range []struct {
		option, description string
		want                bool
	}{
		{"", "disable-cache: true\n", true},
		{"services.hello", "", true},
		{"services.other", "", false},
	} {
		g := newGateway(t, packageYAML)
		g.Locals["context"] = gatewaytest.Files{"pkg/hello/build.yml": "image: hello\nnetwork: true\n" + c.description, "pkg/hello/Dockerfile": "FROM scratch\n"}
		if c.option != "" {
			g.Opts["no-cache"] = c.option
		}
		g.Dockerfile = func(opts map[string]string, _ gatewaytest.Files) (*ocispecs.Image, error) {
			if _, off := opts["no-cache"]; off != c.want {
				t.Errorf("--no-cache-filter=%q %q: no-cache is %v", c.option, c.description, off)
			}
			if opts["force-network-mode"] != "" {
				t.Error("no network")
			}
			return &ocispecs.Image{Config: ocispecs.ImageConfig{Cmd: []string{"/bin/hello"}}}, nil
		}
		mustBuild(t, g)
	}
}

func TestPackageFolderErrors(t *testing.T) {
	for _, c := range []struct {
		description, yaml, want string
	}{
		{want: "pkg/hello/build.yml is not in the build context"},
		{description: "image: hello\nimgae: hello\n", want: "pkg/hello/build.yml: "},
		{description: "arches: [arm64]\n", want: "pkg/hello is for arm64, not for amd64"},
		{description: "depends: {}\n", want: "depends is not supported"},
		{description: "buildArgs: [GREETING]\n", want: `buildArgs: "GREETING" is not NAME=VALUE`},
		{description: "extra-sources: [../../../etc:etc]\n", want: `extra-sources: "../../../etc:etc" is not FROM:TO within the build context`},
		{yaml: strings.Replace(packageYAML, "@pkg:pkg", "@pkg:../pkg", 1), want: "../pkg/hello is outside of the build context"},
	} {
		yaml := packageYAML
		if c.yaml != "" {
			yaml = c.yaml
		}
		g := newGateway(t, yaml)
		if c.description != "" {
			g.Locals["context"] = gatewaytest.Files{"pkg/hello/build.yml": c.description, "pkg/hello/Dockerfile": "FROM scratch\n"}
		}
		_, err := Build(t.Context(), g)
		wantError(t, err, c.want, "aws.yml:3:"+strings.TrimSpace(strings.Split(yaml, "\n")[2]))
	}
}

func TestCompression(t *testing.T) {
	for label, want := range map[string]string{"-": "zstd", "zstd, gzip": "zstd", "gzip,xz": "gzip", "xz": "none"} {
		config := ocispecs.ImageConfig{Labels: map[string]string{decompressorsLabel: label}}
		if label == "-" {
			config.Labels = nil
		}
		im := images{"kernel": {}}
		i := im["kernel"]
		i.config.Config.ImageConfig = config
		im["kernel"] = i
		if got := im.compression(&machine.KernelFiles{Image: "kernel"}); got != want {
			t.Errorf("label %q: %s, want %s", label, got, want)
		}
	}
	if got := (images{}).compression(nil); got != "zstd" {
		t.Errorf("without a kernel: %s", got)
	}
}
