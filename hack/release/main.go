// Command release makes the files of a release that people download: archives
// with the programs for Linux, macOS and Windows, Debian and RPM packages, a
// Homebrew formula, and their checksums. Run it at the root of the checkout:
//
//	go run ./hack/release files --version 1.2.3 --out DIR
//	go run ./hack/release examples --version 1.2.3 --out DIR
//
// The files depend on nothing but the checkout, the version and
// SOURCE_DATE_EPOCH. The examples name the images of the version, each with a
// lock of their digests, so that the images must be in the registry before.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// A release is what all steps need to know.
type release struct {
	version   string
	out       string // absolute, as are the following
	root      string // of the checkout
	work      string // for intermediate files
	time      time.Time
	platforms []platform
}

// A platform is one for which the programs are built.
type platform struct{ os, arch string }

func (p platform) String() string { return p.os + "/" + p.arch }

const defaultPlatforms = "linux/amd64,linux/arm64,darwin/amd64,darwin/arm64,windows/amd64,windows/arm64"

// The syntax of Semantic Versioning, without build metadata, which tags of
// images must not have.
var version = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?$`)

func run(args []string) error {
	if len(args) == 0 || args[0] != "files" && args[0] != "examples" {
		return fmt.Errorf("usage: release files|examples --version VERSION --out DIR")
	}
	flags := flag.NewFlagSet(args[0], flag.ExitOnError)
	number := flags.String("version", "", "`version`, for example 1.2.3")
	out := flags.String("out", "", "`folder` for the files")
	platforms := flags.String("platforms", defaultPlatforms, "comma-separated `platforms` of the programs")
	builder := flags.String("builder", os.Getenv("BUILDX_BUILDER"), "`builder` that reaches the images, for the locks of the examples")
	registry := flags.String("registry", "docker.io/slipwaybuild", "`prefix` of the images that the examples name")
	examples := flags.String("examples", "*.yml", "`pattern` of the names of the examples")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	r, err := newRelease(*number, *out, *platforms)
	if err != nil {
		return err
	}
	defer os.RemoveAll(r.work)
	if args[0] == "examples" {
		err = r.examples(*examples, *builder, *registry)
	} else {
		err = r.files()
	}
	if err != nil {
		return err
	}
	return r.checksums()
}

func newRelease(number, out, platforms string) (*release, error) {
	if !version.MatchString(number) {
		return nil, fmt.Errorf("--version %q: write it as 1.2.3 or 1.2.3-rc.1", number)
	}
	if out == "" {
		return nil, fmt.Errorf("--out is missing")
	}
	r := &release{version: number, time: time.Unix(0, 0).UTC()}
	if text := os.Getenv("SOURCE_DATE_EPOCH"); text != "" {
		seconds, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
		}
		r.time = time.Unix(seconds, 0).UTC()
	}
	for name := range strings.SplitSeq(platforms, ",") {
		system, arch, ok := strings.Cut(name, "/")
		if !ok {
			return nil, fmt.Errorf("--platforms %q: write them as OS/ARCH", name)
		}
		r.platforms = append(r.platforms, platform{system, arch})
	}
	var err error
	if r.root, err = filepath.Abs("."); err != nil {
		return nil, err
	}
	if r.out, err = filepath.Abs(out); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(r.out, 0o755); err != nil {
		return nil, err
	}
	r.work, err = os.MkdirTemp("", "slipway-release-")
	return r, err
}
