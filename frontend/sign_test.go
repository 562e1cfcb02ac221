package frontend

import (
	"slices"
	"testing"
)

func TestLockDown(t *testing.T) {
	for line, want := range map[string]string{
		"":                           "lockdown=integrity module.sig_enforce=1",
		"console=ttyS0 -- x":         "lockdown=integrity module.sig_enforce=1 console=ttyS0 -- x",
		"lockdown=confidentiality a": "module.sig_enforce=1 lockdown=confidentiality a",
	} {
		if got := lockDown(line); got != want {
			t.Errorf("%q becomes %q, want %q", line, got, want)
		}
	}
}

const signedYAML = `# syntax=slipwaybuild/slipway:1
kernel:
  image: slipwaybuild/kernel:v1
  cmdline: console=ttyS0
init:
  - slipwaybuild/init:v1
services:
  - name: sshd
    image: slipwaybuild/sshd:v1
`

// A signed machine is written with the two secrets, and its command line is locked
// down. The vertices of components are the same as without signatures.
func TestSign(t *testing.T) {
	build := func(sign string) solvedGraph {
		g := newGateway(t, signedYAML)
		g.Opts["target"], g.Opts["build-arg:SIGN"] = "raw-efi", sign
		mustBuild(t, g)
		return onlyGraph(t, g)
	}
	signed, plain := build("true"), build("false")
	if got, want := signed.mkfiles()["cmdline"], "lockdown=integrity module.sig_enforce=1 console=ttyS0"; got != want {
		t.Errorf("command line %q, want %q", got, want)
	}
	if got, want := plain.mkfiles()["cmdline"], "console=ttyS0"; got != want {
		t.Errorf("command line without signatures %q, want %q", got, want)
	}
	for _, g := range []struct {
		graph solvedGraph
		want  []string
	}{{signed, []string{"slipway.key", "slipway.crt"}}, {plain, nil}} {
		var secrets []string
		session := false
		for _, op := range g.graph.ops {
			for _, m := range op.GetExec().GetMounts() {
				if m.SecretOpt != nil {
					secrets = append(secrets, m.SecretOpt.ID)
				}
				session = session || m.Dest == "/session"
			}
		}
		if !slices.Equal(secrets, g.want) || session != (g.want != nil) {
			t.Errorf("secrets %q, want %q; session mounted: %t", secrets, g.want, session)
		}
	}
	if a, b := signed.execs("/slipway-packer"), plain.execs("/slipway-packer"); len(a) != len(b) || len(a) == 0 {
		t.Errorf("%d vertices pack components, without signatures %d", len(a), len(b))
	}
}

func TestSignErrors(t *testing.T) {
	g := newGateway(t, signedYAML)
	g.Opts["target"], g.Opts["build-arg:SIGN"] = "raw-efi,kernel+initrd", "true"
	_, err := Build(t.Context(), g)
	wantError(t, err, "--build-arg SIGN: kernel+initrd cannot be signed: only UEFI and enclaves verify signatures")

	g = newGateway(t, signedYAML+`    env: ["PATH=/bin", "INSECURE=true"]`+"\n")
	g.Opts["target"], g.Opts["build-arg:SIGN"] = "raw-efi", "true"
	_, err = Build(t.Context(), g)
	wantError(t, err, "INSECURE=true in the environment opens a shell without a password", "aws.yml:9:image: slipwaybuild/sshd:v1")

	g = newGateway(t, signedYAML)
	g.Opts["build-arg:SIGN"] = "perhaps"
	_, err = Build(t.Context(), g)
	wantError(t, err, "--build-arg SIGN=perhaps: use true, later or false")
}
