package graph

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/moby/buildkit/client/llb"

	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/internal/contract"
)

// input returns the options of a format that do not depend on files of the
// graph. A build writes with the same options in a container and in slipway.
func (b builder) input(f format.Format) format.Input {
	in := format.Input{
		Name:         b.opt.Name,
		Architecture: b.opt.Architecture,
		Cmdline:      b.in.Plan.Cmdline,
		Map:          f.Options.Has(format.Map) && b.opt.Map,
		PCRs:         f.Options.Has(format.PCRs) && b.opt.PCRs,
	}
	if f.Options.Has(format.Size) {
		in.Size = b.opt.Size
	}
	if f.Options.Has(format.Reserve) {
		in.Reserve = b.opt.Reserve
	}
	if f.Options.Has(format.Enclave) {
		in.Role, in.Instance = b.opt.Role, b.opt.Instance
	}
	for _, s := range b.in.Plan.Starts {
		in.Starts = append(in.Starts, s.Start)
	}
	return in
}

// write writes a format. The key of the vertex contains all segments in order.
func (b builder) write(f format.Format, p parts) llb.State {
	in := b.input(f)
	args := []string{"write", "--format", f.Name, "--name", in.Name, "--arch", in.Architecture, "--cmdline", "/machine/cmdline"}
	generated := llb.Mkfile("/cmdline", 0o644, []byte(in.Cmdline))
	if len(in.Starts) > 0 {
		args = append(args, "--starts", "/machine/starts")
		generated = generated.Mkfile("/starts", 0o644, startsJSON(in.Starts))
	}
	mounts := []mount{{
		at:                "/machine",
		state:             llb.Scratch().Platform(b.in.Builder).File(generated, b.name("internal", "generate cmdline")),
		keyedByDefinition: true,
	}}
	if k := b.in.Plan.Kernel; k != nil {
		args = append(args, "--kernel", "/kernel/kernel")
		if k.Ucode != "" {
			args = append(args, "--ucode", "/kernel/ucode.cpio")
		}
		mounts = append(mounts, mount{at: "/kernel", state: p.boot})
	}
	if b.opt.Epoch != nil {
		args = append(args, "--epoch", strconv.FormatInt(*b.opt.Epoch, 10))
	}
	if in.Size > 0 {
		args = append(args, "--size", strconv.FormatInt(in.Size, 10))
	}
	if in.Map {
		args = append(args, "--map")
	}
	if in.Reserve > 0 {
		args = append(args, "--reserve", strconv.FormatInt(in.Reserve, 10))
	}
	if in.Role != "" {
		args = append(args, "--role", in.Role)
	}
	if in.Instance != "" {
		args = append(args, "--instance", in.Instance)
	}
	if f.Options.Has(format.Compression) {
		args = append(args, "--compression", b.opt.Compression)
	}
	if f.Firmware != 0 {
		args = append(args, "--loaders", loadersPath)
		mounts = append(mounts, mount{at: loadersPath, state: b.loaders(), path: loadersPath})
	}
	var secrets []llb.RunOption
	switch b.opt.Sign {
	case SignLater:
		args = append(args, "--sign-later")
	case SignNow:
		args = append(args, "--sign-key", "/sign/key", "--sign-cert", "/sign/certificate")
		secrets = append(secrets, llb.AddSecret("/sign/key", llb.SecretID(SignKey)), llb.AddSecret("/sign/certificate", llb.SecretID(SignCertificate)))
	}
	if in.PCRs {
		args = append(args, "--pcrs")
	}
	if in.PCRs && b.opt.Sign != SignNever {
		args = append(args, "--uefi-data", "/sign/uefi-data")
		secrets = append(secrets, llb.AddSecret("/sign/uefi-data", llb.SecretID(UEFIData), llb.SecretOptional))
	}
	if len(secrets) > 0 {
		// BuildKit's key contains no secret, so the session makes every build write
		// with the keys that it has.
		mounts = append(mounts, mount{at: "/session", state: b.in.Session, keyedByDefinition: true})
	}
	for i, s := range p.segments {
		if s.boot {
			args = append(args, s.component+"=/kernel")
			continue
		}
		at := fmt.Sprintf("/segments/%03d", i)
		args = append(args, s.component+"="+at)
		mounts = append(mounts, mount{at: at, state: s.state, keyedByDefinition: s.files != nil || b.private()})
	}
	return b.run(vertex{
		component: f.Name,
		name:      "write " + b.opt.Name,
		program:   exporterPath,
		args:      args,
		mounts:    mounts,
		secrets:   secrets,
	})
}

// startsJSON encodes what containers need to start.
func startsJSON(starts []contract.Start) []byte {
	text, err := json.Marshal(starts)
	if err != nil {
		panic(err) // strings can always be encoded
	}
	return text
}

// loaders copies the boot loaders out of the tools, which are mounted already
// for their program. A failed step with two mounts of one state has no error message:
// BuildKit 0.34 releases the state twice.
func (b builder) loaders() llb.State {
	return llb.Scratch().Platform(b.in.Builder).File(
		llb.Copy(b.in.Tools, loadersPath, "/"),
		b.name("internal", "copy the boot loaders"))
}

// unpack extracts the archive of a container image. BuildKit keeps owners,
// devices and extended attributes as far as the builder can.
func (b builder) unpack(f format.Format, output llb.State) llb.State {
	return llb.Scratch().Platform(b.in.Builder).File(
		llb.Copy(output, "/"+f.Files(b.opt.Name)[0], "/", &llb.CopyInfo{AttemptUnpack: true}),
		b.name(f.Name, "unpack"))
}

// gather puts the output files of several formats into one directory.
func (b builder) gather(outputs []llb.State) llb.State {
	if len(outputs) == 1 {
		return outputs[0]
	}
	name := b.name("internal", "gather the formats")
	if b.in.Merge {
		return llb.Merge(outputs, name)
	}
	all := llb.Scratch().Platform(b.in.Builder)
	for _, output := range outputs {
		all = all.File(llb.Copy(output, "/", "/", &llb.CopyInfo{CopyDirContentsOnly: true}), name)
	}
	return all
}
