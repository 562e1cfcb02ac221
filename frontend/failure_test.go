package frontend

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/solver/pb"
)

// The message of a program that fails is in the error, and not only in the
// progress display.
func TestFailedStep(t *testing.T) {
	yaml := "init:\n  - slipwaybuild/init:v1\nservices:\n  - name: sshd\n    image: slipwaybuild/sshd:v1\n    command: [a]\n    tmpfs: [/b, /c]\n" +
		"files:\n  - path: etc/app/a\n    contents: x\n  - path: etc/app/c/d\n    contents: x\n" +
		"kernel:\n  image: slipwaybuild/kernel:v1\n  tar: minimal.tar\n"
	at := func(line int, message string) string {
		return fmt.Sprintf("aws.yml:%d: [kernel+initrd] write aws: slipway-exporter: %s", line, message)
	}
	for _, c := range []struct {
		program, arg, message, want string
		at                          []string
	}{
		{
			program: "/slipway-packer", arg: "containers/services/sshd/lower", message: "slipway-packer: open \x1b[2Jx: too long\n",
			want: "aws.yml:5: [services.sshd] pack docker.io/slipwaybuild/sshd:v1: slipway-packer: open \ufffd[2Jx: too long",
			at:   []string{"aws.yml:5:image: slipwaybuild/sshd:v1"},
		},
		{
			program: "/slipway-exporter", message: "slipway-exporter: SIZE is too small",
			want: "[kernel+initrd] write aws: slipway-exporter: SIZE is too small",
		},
		{
			program: "/slipway-exporter", message: "slipway-exporter: segment of services.sshd: a name is too long",
			want: "aws.yml:5: [kernel+initrd] write aws: slipway-exporter: segment of services.sshd: a name is too long",
			at:   []string{"aws.yml:5:image: slipwaybuild/sshd:v1"},
		},
		{
			program: "/slipway-exporter", message: "slipway-exporter: tar: etc/app/c of files is below etc/app, which is a symlink to /x in services.sshd: use the path x/c",
			want: at(11, "tar: etc/app/c of files is below etc/app, which is a symlink to /x in services.sshd: use the path x/c"), at: []string{"aws.yml:11:- path: etc/app/c/d"},
		},
		{
			program: "/slipway-exporter", message: "slipway-exporter: tar: usr/x of init[0] is below usr, which is a file in services.sshd: remove one",
			want: at(2, "tar: usr/x of init[0] is below usr, which is a file in services.sshd: remove one"), at: []string{"aws.yml:2:- slipwaybuild/init:v1"},
		},
		{
			program: "/slipway-exporter", message: "slipway-exporter: tar: containers/x of configuration is below etc/app/c/d, which is a file in files: remove one",
			want: at(11, "tar: containers/x of configuration is below etc/app/c/d, which is a file in files: remove one"), at: []string{"aws.yml:11:- path: etc/app/c/d"},
		},
		{
			program: "/slipway-exporter", message: "slipway-exporter: kernel+squashfs: the kernel cannot mount SquashFS: the module",
			want: at(15, "kernel+squashfs: the kernel cannot mount SquashFS: the module"), at: []string{"aws.yml:15:tar: minimal.tar"},
		},
		{
			program: "/slipway-exporter", message: "slipway-exporter: raw: services.sshd: command: the image has no file",
			want: at(6, "raw: services.sshd: command: the image has no file"), at: []string{"aws.yml:6:command: [a]"},
		},
		{
			program: "/slipway-exporter", message: "slipway-exporter: raw: services.sshd: mount on /c: a filesystem\nservices.sshd: mount on /b: a file",
			want: at(7, "raw: services.sshd: mount on /c: a filesystem\nservices.sshd: mount on /b: a file"), at: []string{"aws.yml:7:tmpfs: [/b, /c]"},
		},
		{
			program: "/slipway-exporter", message: "slipway-exporter: raw: the kernel is for arm64, but the machine for amd64",
			want: at(14, "raw: the kernel is for arm64, but the machine for amd64"), at: []string{"aws.yml:14:image: slipwaybuild/kernel:v1"},
		},
		{program: "/slipway-exporter", message: " ", want: `process "/slipway-exporter write`}, // a program without a message
	} {
		g := newGateway(t, yaml)
		g.Fail = func(op *pb.ExecOp) string {
			args := op.Meta.Args
			if args[0] == c.program && (len(args) == 1 || c.arg == "" || slices.Contains(args, c.arg)) {
				return c.message
			}
			return ""
		}
		_, err := Build(t.Context(), g)
		wantError(t, err, c.want, c.at...)
		if err != nil && strings.Contains(err.Error(), "exit code") && c.message != " " {
			t.Errorf("the error repeats BuildKit's: %v", err)
		}
	}
}

// A builder that is too old says so.
func TestOldBuilder(t *testing.T) {
	err := newCapabilities(pb.Caps.CapSet(nil)).require(pb.CapExecMountContentCache)
	err = explainOld(fmt.Errorf("solve: %w", err))
	wantError(t, err, "the builder is too old: it requires BuildKit 0.13, which Docker Engine 26 has, or later: solve: requested")
}

// The exporter checks whether containers can start, unless NeverStarts is
// skipped.
func TestStarts(t *testing.T) {
	for check, want := range map[string]bool{"": true, "skip=LatestTag": true, "skip=NeverStarts": false, "skip=all": false} {
		g := newGateway(t, "services:\n  - name: sshd\n    image: slipwaybuild/sshd:v1\n")
		g.Opts["target"] = "tar"
		if check != "" {
			g.Opts["build-arg:BUILDKIT_DOCKERFILE_CHECK"] = check
		}
		checked := false
		g.Fail = func(op *pb.ExecOp) string {
			checked = checked || slices.Contains(op.Meta.Args, "--starts")
			return ""
		}
		if _, err := Build(t.Context(), g); err != nil {
			t.Fatal(err)
		}
		if checked != want {
			t.Errorf("%q: checked %t, want %t", check, checked, want)
		}
	}
}
