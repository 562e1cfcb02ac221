package graph

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/testutil/golden"
	"github.com/slipway-build/slipway/machine"
)

func input() Input {
	return Input{
		Plan: &machine.Plan{
			Cmdline: "console=ttyS0",
			Kernel:  &machine.KernelFiles{Image: "docker.io/test/kernel:v1", Binary: "kernel", Tar: "kernel.tar", Ucode: "ucode.cpio"},
			Dirs:    []machine.Entry{{Entry: contract.Entry{Path: "dev", Type: "dir", Mode: 0o755}}},
			Trees: []machine.Tree{
				{Name: "init[0]", Image: "docker.io/test/init:v1", Rules: "init"},
				{Name: "services.sshd", Image: "docker.io/test/sshd:v1", Prefix: "containers/services/sshd/rootfs", Rules: "container"},
			},
			Configs: []machine.Entry{{Entry: contract.Entry{Path: "containers/services/sshd/config.json", Type: "file", Mode: 0o644, Contents: []byte("{}")}}},
			Files: []machine.Entry{
				{Entry: contract.Entry{Path: "etc/app.conf", Type: "file", Mode: 0o600, Source: "context/app.conf"}},
				{Entry: contract.Entry{Path: "etc/key", Type: "file", Mode: 0o600}, Secret: "key"},
			},
		},
		Images: map[string]Rootfs{
			"docker.io/test/kernel:v1": {State: llb.Image("docker.io/test/kernel:v1"), Pinned: true},
			"docker.io/test/init:v1":   {State: llb.Image("docker.io/test/init:v1")},
			"docker.io/test/sshd:v1":   {Layers: []Blob{{blob("a"), strings.Repeat("a", 64)}, {blob("b"), strings.Repeat("b", 64)}}},
		},
		Contexts:    map[string]llb.State{"context": llb.Local("context")},
		Session:     llb.Local("context", llb.FollowPaths([]string{"none"})),
		Tools:       llb.Image("docker.io/slipwaybuild/slipway:1"),
		Builder:     ocispecs.Platform{OS: "linux", Architecture: "amd64"},
		PackEntries: segment.PackEntries,
		Location:    func(machine.Range) llb.ConstraintsOpt { return llb.WithDescription(nil) },
		IgnoreCache: func(string) bool { return false },
		Merge:       true,
	}
}

func blob(digit string) llb.State {
	return llb.ImageBlob("docker.io/test/sshd@sha256:" + strings.Repeat(digit, 64))
}

// formats returns the formats with comma-separated names.
func formats(t *testing.T, names string) []format.Format {
	t.Helper()
	var out []format.Format
	for name := range strings.SplitSeq(names, ",") {
		f, ok := format.Lookup(name)
		if !ok {
			t.Fatalf("no format %s", name)
		}
		out = append(out, f)
	}
	return out
}

// TestOutputGolden checks the keys of the vertices of a machine. If the golden
// files change, no user's cache applies to the first build of a new release.
func TestOutputGolden(t *testing.T) {
	for _, names := range []string{"kernel+initrd", "raw", "raw,qcow2,tar"} {
		opt := Options{Formats: formats(t, names), Name: "aws", Compression: "zstd", Architecture: "amd64", Size: 100 << 20}
		t.Run(names, func(t *testing.T) {
			st, err := Output(input(), opt)
			if err != nil {
				t.Fatal(err)
			}
			golden.Equal(t, "testdata/"+names+".txt", describe(t, st))
		})
	}
}

// TestPackKeyIsIndependent checks that the vertex of a component depends on its
// own image alone, and not on the order and the number of other components.
func TestPackKeyIsIndependent(t *testing.T) {
	in := input()
	before := digests(t, in)
	in.Plan.Trees = append([]machine.Tree{{Name: "services.new", Image: "docker.io/test/init:v1", Prefix: "containers/services/new/rootfs", Rules: "container"}}, in.Plan.Trees...)
	in.Plan.Cmdline = "console=ttyS1"
	after := digests(t, in)
	for _, name := range []string{"[init[0]] pack docker.io/test/init:v1", "[services.sshd] pack docker.io/test/sshd:v1", "[kernel] pack docker.io/test/kernel:v1"} {
		if before[name] == "" || before[name] != after[name] {
			t.Errorf("%s: key %q became %q", name, before[name], after[name])
		}
	}
	const write = "[raw] write aws"
	if before[write] == "" || before[write] == after[write] {
		t.Errorf("%s: key %q did not change, although its inputs did", write, before[write])
	}
}

// TestOutputIsPure checks that graphs depend on the arguments alone, whatever was
// called before, and that the arguments stay as they are.
func TestOutputIsPure(t *testing.T) {
	in := input()
	opt := Options{Formats: formats(t, "raw,tar"), Name: "aws", Compression: "zstd", Architecture: "amd64"}
	first, err := Output(in, opt)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Segments(in, opt); err != nil {
		t.Fatal(err)
	}
	opt.Formats = formats(t, "tar,raw")
	if _, err := Output(in, opt); err != nil {
		t.Fatal(err)
	}
	opt.Formats = formats(t, "raw,tar")
	again, err := Output(in, opt)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(describe(t, first), describe(t, again)); d != "" {
		t.Errorf("the second graph differs (-first +second):\n%s", d)
	}
	if d := cmp.Diff(input().Plan, in.Plan); d != "" {
		t.Errorf("the plan changed (-before +after):\n%s", d)
	}
}

// TestSecretsAreNotCached checks that a format of a machine with secrets is keyed
// by the definitions of its segments, one of which depends on the session.
// Without secrets, contents are the keys.
func TestSecretsAreNotCached(t *testing.T) {
	for secrets, want := range map[bool]string{
		true:  "mount /segments/002 ro unread",
		false: "mount /segments/002 ro from",
	} {
		in := input()
		if !secrets {
			in.Plan.Files = in.Plan.Files[:1]
		}
		st, err := Output(in, Options{Formats: formats(t, "tar"), Name: "aws", Architecture: "amd64"})
		if err != nil {
			t.Fatal(err)
		}
		if got := describe(t, st); !strings.Contains(got, want) {
			t.Errorf("secrets: %t: no %q in\n%s", secrets, want, got)
		}
	}
}

func digests(t *testing.T, in Input) map[string]digest.Digest {
	t.Helper()
	st, err := Output(in, Options{Formats: formats(t, "raw"), Name: "aws", Compression: "zstd", Architecture: "amd64"})
	if err != nil {
		t.Fatal(err)
	}
	def, err := st.Marshal(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]digest.Digest{}
	for _, dt := range def.Def {
		d := digest.FromBytes(dt)
		out[def.Metadata[d].Description["llb.customname"]] = d
	}
	return out
}

// describe returns the vertices, sorted by name, with everything that is part of
// their keys.
func describe(t *testing.T, st llb.State) string {
	t.Helper()
	def, err := st.Marshal(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{}
	ops := map[string]*pb.Op{}
	for _, dt := range def.Def {
		var op pb.Op
		if err := op.UnmarshalVT(dt); err != nil {
			t.Fatal(err)
		}
		d := digest.FromBytes(dt)
		name := def.Metadata[d].Description["llb.customname"]
		if s := op.GetSource(); s != nil && name == "" {
			name = s.Identifier
		}
		if name == "" {
			name = "(result)"
		}
		names[d.String()] = name
		ops[name] = &op
	}
	var order []string
	for name := range ops {
		order = append(order, name)
	}
	sort.Strings(order)
	var b strings.Builder
	for _, name := range order {
		op := ops[name]
		fmt.Fprintln(&b, name)
		if p := op.Platform; p != nil {
			fmt.Fprintf(&b, "  platform %s/%s\n", p.OS, p.Architecture)
		}
		if e := op.GetExec(); e != nil {
			fmt.Fprintf(&b, "  args %s\n", strings.Join(e.Meta.Args, " "))
			fmt.Fprintf(&b, "  env %q cwd %s network %s\n", e.Meta.Env, e.Meta.Cwd, e.Network)
			for _, m := range e.Mounts {
				from := "scratch"
				if m.Input >= 0 {
					from = names[op.Inputs[m.Input].Digest]
				}
				mode := "rw"
				if m.Readonly {
					mode = "ro"
				}
				if m.ContentCache == pb.MountContentCache_OFF {
					mode += " unread"
				}
				fmt.Fprintf(&b, "  mount %s %s from %s%s\n", m.Dest, mode, from, m.Selector)
			}
		}
		if e := op.GetExec(); e != nil {
			for _, m := range e.Mounts {
				if m.SecretOpt != nil {
					fmt.Fprintf(&b, "  secret %s\n", m.SecretOpt.ID)
				}
			}
		}
		if m := op.GetMerge(); m != nil {
			for _, i := range m.Inputs {
				fmt.Fprintf(&b, "  merge %s\n", names[op.Inputs[i.Input].Digest])
			}
		}
		if f := op.GetFile(); f != nil {
			for _, a := range f.Actions {
				if mk := a.GetMkfile(); mk != nil {
					data := string(mk.Data)
					if strings.Contains(data, "\x00") || !utf8.ValidString(data) {
						data = digest.FromString(data).String()
					}
					fmt.Fprintf(&b, "  mkfile %s %o %s\n", mk.Path, mk.Mode, data)
				}
			}
		}
	}
	return b.String()
}
