package frontend

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/slipway-build/slipway/machine"
)

func TestLockText(t *testing.T) {
	one, two := digest.FromString("one"), digest.FromString("two")
	l := &lockFile{yml: "aws.yml", images: map[string]digest.Digest{"slipwaybuild/sshd:v1": one, "localhost:5000/a@" + two.String(): two, "alpine": one}}
	text := string(l.text())
	want := "# The digests of the images of aws.yml, written by \"slipway lock aws.yml\".\nversion: 1\nimages:\n" +
		"  alpine: " + one.String() + "\n" +
		"  localhost:5000/a@" + two.String() + ": " + two.String() + "\n" +
		"  slipwaybuild/sshd:v1: " + one.String() + "\n"
	if text != want {
		t.Errorf("got\n%swant\n%s", text, want)
	}
	got, err := parseLock("aws.lock.yml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(got.images, l.images) {
		t.Errorf("read back as %v", got.images)
	}
	if got.lines["slipwaybuild/sshd:v1"] != 6 {
		t.Errorf("lines are %v", got.lines)
	}
}

func TestBadLock(t *testing.T) {
	for text, want := range map[string]string{
		"":                                      "version 0",
		"version: 2\nimages: {}\n":              "version 2 is not supported",
		"version: 1\nimage: {}\n":               "image",
		"version: 1\nimages:\n  a: sha256:12\n": "line 3: digest of a:",
		"version: 1\nimages:\n  a:\n    - sha256:\n": "line",
	} {
		if _, err := parseLock("aws.lock.yml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

func TestSelectImages(t *testing.T) {
	refs := []machine.ImageRef{{Name: "docker.io/slipwaybuild/sshd:v1"}, {Name: "docker.io/slipwaybuild/sshd:v2"}, {Name: "docker.io/library/alpine"}}
	for names, want := range map[string][]string{
		"":                         nil,
		"slipwaybuild/sshd:v1":     {"slipwaybuild/sshd:v1"},
		"alpine,slipwaybuild/sshd": {"alpine", "slipwaybuild/sshd:v1", "slipwaybuild/sshd:v2"},
	} {
		selected, err := selectImages(names, refs)
		if got := slices.Sorted(maps.Keys(selected)); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: got %q, %v", names, got, err)
		}
	}
	if _, err := selectImages("slipwaybuild/sshd:v3", refs); err == nil || !strings.Contains(err.Error(), `did you mean "slipwaybuild/sshd:v1"?`) {
		t.Errorf("an unknown image: %v", err)
	}
}
