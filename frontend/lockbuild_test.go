package frontend

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/client/llb"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/internal/gatewaytest"
)

// addLock adds a lock that holds images of the gateway, and returns it.
func addLock(g *gatewaytest.Gateway, names ...string) string {
	text := "version: 1\nimages:\n"
	for _, name := range names {
		text += fmt.Sprintf("  %s: %s\n", name, g.Images["docker.io/"+name].Digest)
	}
	g.Locals["dockerfile"]["aws.lock.yml"] = text
	return text
}

var lockedImages = []string{"slipwaybuild/init:v1", "slipwaybuild/slipway:1", "slipwaybuild/sshd:v1"}

// moveTag publishes another image under the tag of one. The old one stays
// available by its digest.
func moveTag(g *gatewaytest.Gateway, name string) (before, after string) {
	key := "docker.io/" + name
	old := g.Images[key]
	g.Images[key+"-old"] = old
	g.Images[key] = gatewaytest.NewImage("moved "+name, ocispecs.ImageConfig{Cmd: []string{"/bin/moved"}})
	return old.Digest.String(), g.Images[key].Digest.String()
}

func TestLockPinsImages(t *testing.T) {
	g := newGateway(t, twoImages)
	addLock(g, lockedImages...)
	before, after := moveTag(g, "slipwaybuild/sshd:v1")
	mustBuild(t, g)
	sources := strings.Join(onlyGraph(t, g).sources(), " ")
	if !strings.Contains(sources, before) || strings.Contains(sources, after) {
		t.Errorf("sources %s, want %s", sources, before)
	}
}

func TestLockErrors(t *testing.T) {
	other := digest.FromString("other").String()
	for _, c := range []struct {
		name string
		lock func(*gatewaytest.Gateway) string
		want string
		at   []string
	}{
		{
			"an image is missing",
			func(g *gatewaytest.Gateway) string { return addLock(g, lockedImages[:2]...) },
			"image slipwaybuild/sshd:v1: not in aws.lock.yml: slipway lock --update slipwaybuild/sshd:v1 aws.yml adds it",
			[]string{"aws.yml:5:image: slipwaybuild/sshd:v1"},
		},
		{
			"an image is not used",
			func(g *gatewaytest.Gateway) string {
				return addLock(g, append(lockedImages, "slipwaybuild/rngd:v1")...)
			},
			"aws.lock.yml:6: image slipwaybuild/rngd:v1 is not in aws.yml: slipway lock --update= aws.yml removes it",
			nil,
		},
		{
			"the frontend is missing",
			func(g *gatewaytest.Gateway) string { return addLock(g, lockedImages[0], lockedImages[2]) },
			"image slipwaybuild/slipway:1: not in aws.lock.yml",
			nil,
		},
		{
			"the digest is invalid",
			func(*gatewaytest.Gateway) string { return "version: 1\nimages:\n  a: sha256:12\n" },
			"aws.lock.yml: line 3: digest of a: invalid checksum digest length; slipway lock aws.yml replaces it",
			nil,
		},
		{
			"the image does not exist any more",
			func(g *gatewaytest.Gateway) string {
				return strings.ReplaceAll(addLock(g, lockedImages...), g.Images["docker.io/slipwaybuild/sshd:v1"].Digest.String(), other)
			},
			"image slipwaybuild/sshd:v1: docker.io/slipwaybuild/sshd:v1@" + other + ": not found",
			[]string{"aws.yml:5:image: slipwaybuild/sshd:v1"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGateway(t, twoImages)
			g.Locals["dockerfile"]["aws.lock.yml"] = c.lock(g)
			_, err := Build(t.Context(), g)
			wantError(t, err, c.want, c.at...)
		})
	}
}

// A named context replaces an image, whether the lock holds it or not.
func TestLockAndNamedContext(t *testing.T) {
	g := newGateway(t, twoImages)
	addLock(g, lockedImages...)
	g.Opts["context:slipwaybuild/sshd:v1"] = "docker-image://slipwaybuild/rngd:v1"
	mustBuild(t, g)
	if got := onlyGraph(t, g).sources(); !slices.Contains(got, pinned(g, "slipwaybuild/rngd:v1")) {
		t.Errorf("sources %q", got)
	}
}

// The frontend refuses to work if the lock names another frontend than the
// running one.
func TestLockedFrontend(t *testing.T) {
	const yaml = "# syntax=slipwaybuild/slipway:1\ninit:\n  - slipwaybuild/init:v1\n"
	g := newGateway(t, yaml)
	running := llb.Image(strings.TrimPrefix(pinned(g, "slipwaybuild/slipway:1"), "docker-image://"))
	g.Frontend = &running
	addLock(g, "slipwaybuild/slipway:1", "slipwaybuild/init:v1")
	mustBuild(t, g)

	is := g.Images["docker.io/slipwaybuild/slipway:1"].Digest.String()
	_, locked := moveTag(g, "slipwaybuild/slipway:1")
	addLock(g, "slipwaybuild/slipway:1", "slipwaybuild/init:v1")
	_, err := Build(t.Context(), g)
	wantError(t, err, "is now "+is+", but aws.lock.yml has "+locked+": slipway lock --update slipwaybuild/slipway:1 aws.yml updates it",
		"aws.yml:1:# syntax=slipwaybuild/slipway:1")

	g.Opts["context:slipwaybuild/slipway:1"] = "docker-image://slipwaybuild/slipway:1"
	mustBuild(t, g)
}

// lockOf returns the answer to the request for a lock.
func lockOf(t *testing.T, g *gatewaytest.Gateway) string {
	t.Helper()
	g.Opts["requestid"] = LockRequest
	return string(mustBuild(t, g).Metadata["result.txt"])
}

// images cuts the comment off a lock.
func imagesOf(lock string) string {
	_, rest, _ := strings.Cut(lock, "\n")
	return rest
}

func TestLockRequest(t *testing.T) {
	g := newGateway(t, twoImages+"  - name: local\n    image: \"@pkg:pkg\"\n")
	g.Locals["dockerfile"]["aws.lock.yml"] = "broken: ["
	want := addLock(newGateway(t, ""), lockedImages...)
	got := lockOf(t, g)
	if imagesOf(got) != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	g.Locals["dockerfile"]["aws.lock.yml"] = got
	g.Opts[`build-arg:`+LockUpdate] = ""
	moveTag(g, "slipwaybuild/sshd:v1")
	if again := lockOf(t, g); again != got {
		t.Errorf("an update of nothing changed the lock to\n%s", again)
	}
}

func TestLockUpdate(t *testing.T) {
	g := newGateway(t, twoImages)
	text := addLock(g, lockedImages...)
	before, after := moveTag(g, "slipwaybuild/sshd:v1")
	moveTag(g, "slipwaybuild/init:v1")
	g.Opts["build-arg:"+LockUpdate] = "slipwaybuild/sshd"
	if got, want := imagesOf(lockOf(t, g)), strings.Replace(text, before, after, 1); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	g.Opts["build-arg:"+LockUpdate] = "slipwaybuild/sshs"
	_, err := Build(t.Context(), g)
	wantError(t, err, `the machine has no image slipwaybuild/sshs (did you mean "slipwaybuild/sshd:v1"?)`)
}

func TestLockRequestErrors(t *testing.T) {
	g := newGateway(t, "init:\n  - slipwaybuild/nonsuch:v1\n")
	g.Opts["requestid"] = LockRequest
	_, err := Build(t.Context(), g)
	wantError(t, err, "nonsuch:v1: not found", "aws.yml:2:- slipwaybuild/nonsuch:v1")

	// All platforms of the request must exist.
	g = newGateway(t, twoImages)
	g.Opts["requestid"] = LockRequest
	g.Opts["platform"] = "linux/amd64,linux/s390x"
	_, err = Build(t.Context(), g)
	wantError(t, err, "does not exist for linux/s390x, but for linux/amd64, linux/arm64", "aws.yml:2:- slipwaybuild/init:v1", "aws.yml:5:image: slipwaybuild/sshd:v1")
}

// An image that the user replaces is not in the lock.
func TestLockRequestWithNamedContext(t *testing.T) {
	g := newGateway(t, twoImages)
	g.Opts["context:slipwaybuild/sshd:v1"] = "docker-image://slipwaybuild/rngd:v1"
	if got, want := imagesOf(lockOf(t, g)), addLock(newGateway(t, ""), lockedImages[:2]...); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// A lock holds the digest that the registry has for an image of the classic store,
// which has none itself.
func TestLockAndClassicStore(t *testing.T) {
	const name = "docker.io/slipwaybuild/sshd:v1"
	g := newGateway(t, twoImages)
	g.Classic[name] = gatewaytest.NewManifest("sshd", ocispecs.ImageConfig{Cmd: []string{"own"}}, "linux/amd64")
	want := addLock(newGateway(t, ""), lockedImages...)
	got := lockOf(t, g)
	if imagesOf(got) != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}

	g.Locals["dockerfile"]["aws.lock.yml"] = got
	delete(g.Opts, "requestid")
	mustBuild(t, g)
	if sources := onlyGraph(t, g).sources(); !slices.Contains(sources, pinned(g, "slipwaybuild/sshd:v1")) {
		t.Errorf("sources %q", sources)
	}

	delete(g.Images, name)
	g.Opts["requestid"] = LockRequest
	_, err := Build(t.Context(), g)
	wantError(t, err, "image slipwaybuild/sshd:v1: the Docker Engine has it in an image store without digests, and no registry has it: ",
		"aws.yml:5:image: slipwaybuild/sshd:v1")
}

// A frontend without a digest cannot be compared with the lock.
func TestLockedFrontendInClassicStore(t *testing.T) {
	g := newGateway(t, "# syntax=slipwaybuild/slipway:1\ninit:\n  - slipwaybuild/init:v1\n")
	running := llb.Image("docker.io/slipwaybuild/slipway:1")
	g.Frontend = &running
	mustBuild(t, g)
	addLock(g, "slipwaybuild/slipway:1", "slipwaybuild/init:v1")
	_, err := Build(t.Context(), g)
	wantError(t, err, "cannot be compared with aws.lock.yml: remove it with docker image rm slipwaybuild/slipway:1",
		"aws.yml:1:# syntax=slipwaybuild/slipway:1")
}

// The image of a layout must exist for the platforms of its volume, not for those of
// the machine.
func TestLockOfLayout(t *testing.T) {
	for platforms, want := range map[string]string{
		"linux/s390x": "",
		"":            "",
		"linux/amd64": "does not exist for linux/amd64, but for linux/s390x",
	} {
		g := newGateway(t, layoutYAML("slipwaybuild/sshd:v1", platforms))
		image := gatewaytest.NewManifest("sshd", ocispecs.ImageConfig{}, "linux/s390x")
		g.Images["docker.io/slipwaybuild/sshd:v1"] = image
		g.Opts["requestid"] = LockRequest
		res, err := Build(t.Context(), g)
		if want != "" {
			wantError(t, err, want, "aws.yml:3:image: slipwaybuild/sshd:v1")
		} else if err != nil || !strings.Contains(string(res.Metadata["result.txt"]), image.Digest.String()) {
			t.Errorf("platforms [%s]: %v, %+v", platforms, err, res)
		}
	}
}
