package bundle

import (
	"encoding/json"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/slipway-build/slipway/internal/contract/policy"
)

// wantsFilter tells whether the annotations of a container ask for the default filter of system calls.
func wantsFilter(annotations map[string]string) bool {
	return annotations[policy.Prefix+"seccomp"] == "default"
}

// filterCalls puts Docker's default filter into a config.json that asks for it and has none, as it suits the processor, the kernel and the
// container's capabilities. The text is that of the whole config.json.
func filterCalls(spec map[string]json.RawMessage, text []byte) error {
	var annotations map[string]string
	if len(spec["annotations"]) > 0 {
		if err := json.Unmarshal(spec["annotations"], &annotations); err != nil {
			return err
		}
	}
	if !wantsFilter(annotations) {
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
	filter, err := seccomp.GetDefaultProfile(&typed)
	if err != nil {
		return err
	}
	var linux map[string]json.RawMessage
	if err := json.Unmarshal(spec["linux"], &linux); err != nil {
		return err
	}
	if linux["seccomp"], err = json.Marshal(filter); err != nil {
		return err
	}
	spec["linux"], err = json.Marshal(linux)
	return err
}
