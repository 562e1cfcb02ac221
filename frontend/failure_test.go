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
	yaml := "init:\n  - slipwaybuild/init:v1\nservices:\n  - name: sshd\n    image: slipwaybuild/sshd:v1\n"
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
