package machine

import (
	"fmt"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/slipway-build/slipway/internal/schema"
	"github.com/slipway-build/slipway/internal/suggest"
)

// A Capability is the name of a capability (capabilities(7)), or
// "all" or "none", which must be the only entry of a list.
type Capability string

const (
	allCapabilities Capability = "all"
	noCapabilities  Capability = "none"
)

// capabilities are those that "all" stands for, in the order of their numbers
// in capabilities(7).
var capabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
	"CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
	"CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
	"CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
	"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
	"CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// UnmarshalText checks a name. "all" and "none" may be in any case.
func (c *Capability) UnmarshalText(text []byte) error {
	name := string(text)
	switch lower := Capability(strings.ToLower(name)); {
	case slices.Contains(capabilities, name):
		*c = Capability(name)
	case lower == allCapabilities, lower == noCapabilities:
		*c = lower
	default:
		meant := suggest.Nearest(strings.TrimPrefix(strings.ToUpper(name), capPrefix), capabilityWords())
		if meant != "" {
			meant = capPrefix + meant
		}
		return fmt.Errorf("is not a known capability%s", suggest.Word(meant))
	}
	return nil
}

const capPrefix = "CAP_"

// capabilityWords returns the names of capabilities without their prefix.
func capabilityWords() []string {
	var words []string
	for _, c := range capabilities {
		words = append(words, strings.TrimPrefix(c, capPrefix))
	}
	return words
}

// Syntax describes the syntax in words and in JSON Schema.
func (Capability) Syntax() (words string, keywords map[string]any) {
	return "", map[string]any{"enum": slices.Concat(capabilities, []string{"all", "ALL", "none", "NONE"})}
}

// String returns the name.
func (c Capability) String() string { return string(c) }

// capabilities returns the capability sets. All sets but the effective and the
// ambient one hold both of these.
func (c *Container) capabilities() *specs.LinuxCapabilities {
	effective, ambient := expanded(c.Capabilities), expanded(c.Ambient)
	both := slices.Concat(effective, ambient)
	slices.Sort(both)
	both = slices.Compact(both)
	return &specs.LinuxCapabilities{
		Effective:   effective,
		Ambient:     ambient,
		Bounding:    both,
		Inheritable: both,
		Permitted:   both,
	}
}

func hasAll(l []Capability) bool { return slices.Contains(l, allCapabilities) }

// expanded returns the names that a list of capabilities stands for, each once.
func expanded(l []Capability) []string {
	if hasAll(l) {
		return capabilities
	}
	var out []string
	for _, c := range l {
		if c != noCapabilities && !slices.Contains(out, string(c)) {
			out = append(out, string(c))
		}
	}
	return out
}

// capabilityLists checks lists as they are written, before a label is applied.
func (k checker) capabilityLists(c *Container, node *schema.Node) {
	k.capabilities("capabilities", c.Capabilities, node)
	k.capabilities("capabilities.add", c.CapabilitiesAdd, node)
	k.capabilities("ambient", c.Ambient, node)
}

func (k checker) capabilities(key string, l []Capability, node *schema.Node) {
	for i, c := range l {
		if len(l) > 1 && (c == allCapabilities || c == noCapabilities) {
			k.errorf(node.Key(key).Index(i), "%s in %s must not combine %s with other entries", key, k.where, c)
		}
	}
}
