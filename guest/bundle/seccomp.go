package bundle

import (
	"encoding/json"
	"slices"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/contract/policy"
)

// wantsProfile reports whether the annotations of a container ask for the
// default seccomp profile.
func wantsProfile(annotations map[string]string) bool {
	p, _ := policy.Parse(contract.Services, annotations) // the annotation is valid in all sections; the init prints errors
	return p.Seccomp
}

// addProfile adds the default seccomp profile of Docker to a config.json whose
// annotations ask for it and that has no profile. It depends on the processor,
// the kernel and the capabilities of the container. text is the whole
// config.json.
func addProfile(spec map[string]json.RawMessage, text []byte) error {
	var annotations map[string]string
	if len(spec["annotations"]) > 0 {
		if err := json.Unmarshal(spec["annotations"], &annotations); err != nil {
			return err
		}
	}
	if !wantsProfile(annotations) {
		return nil
	}
	var typed specs.Spec
	if err := json.Unmarshal(text, &typed); err != nil {
		return err
	}
	if typed.Linux == nil || typed.Linux.Seccomp != nil {
		return nil
	}
	if typed.Process == nil {
		typed.Process = &specs.Process{}
	}
	if typed.Process.Capabilities == nil {
		typed.Process.Capabilities = &specs.LinuxCapabilities{}
	}
	profile, err := seccomp.GetDefaultProfile(&typed)
	if err != nil {
		return err
	}
	// A filter has all calls of each architecture, and the kernel's hardened
	// compiler (net.core.bpf_jit_harden) takes quadratic time for it. Kernels
	// without CONFIG_X86_X32_ABI, as Slipway's, have no calls of x32.
	profile.Architectures = slices.DeleteFunc(profile.Architectures, func(a specs.Arch) bool { return a == specs.ArchX32 })
	var linux map[string]json.RawMessage
	if err := json.Unmarshal(spec["linux"], &linux); err != nil {
		return err
	}
	if linux["seccomp"], err = json.Marshal(profile); err != nil {
		return err
	}
	spec["linux"], err = json.Marshal(linux)
	return err
}
