package machine

import (
	"fmt"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// capability is the name of a capability, or all or none in small letters.
type capability string

const (
	allCapabilities capability = "all"
	noCapabilities  capability = "none"
)

// capabilities are those that "all" stands for, in the order of their numbers (capabilities(7)).
var capabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
	"CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
	"CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
	"CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
	"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
	"CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

func (c *capability) parse(text string, _ *Field) error {
	switch {
	case slices.Contains(capabilities, text):
		*c = capability(text)
	case strings.EqualFold(text, string(allCapabilities)), strings.EqualFold(text, string(noCapabilities)):
		*c = capability(strings.ToLower(text))
	default:
		meant := nearest(strings.TrimPrefix(strings.ToUpper(text), capPrefix), capabilityWords())
		if meant != "" {
			meant = capPrefix + meant
		}
		return fmt.Errorf("is not a capability%s", didYouMean(meant))
	}
	return nil
}

const capPrefix = "CAP_"

// capabilityWords are the names of capabilities without what all of them begin with.
func capabilityWords() []string {
	var words []string
	for _, c := range capabilities {
		words = append(words, strings.TrimPrefix(c, capPrefix))
	}
	return words
}

func (c *capability) schema() schemaNode {
	return schemaNode{"enum": slices.Concat(capabilities, []string{"all", "ALL", "none", "NONE"})}
}

func (c *capability) String() string { return string(*c) }

// capabilities gives the sets of capabilities. All but the effective and the ambient set hold both of these.
func (c *container) capabilities() *specs.LinuxCapabilities {
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

// hasAll tells whether a list says all capabilities.
func hasAll(l list[capability]) bool { return slices.Contains(plain(l), allCapabilities) }

// expanded gives the names that a list of capabilities stands for, each once.
func expanded(l list[capability]) []string {
	if hasAll(l) {
		return capabilities
	}
	var out []string
	for _, c := range l.V {
		if c.V != noCapabilities && !slices.Contains(out, string(c.V)) {
			out = append(out, string(c.V))
		}
	}
	return out
}

// capabilityLists checks lists as they are written, before a label is applied.
func (k checker) capabilityLists(c *container) {
	k.capabilities("capabilities", c.Capabilities)
	k.capabilities("capabilities.add", c.CapabilitiesAdd)
	k.capabilities("ambient", c.Ambient)
}

func (k checker) capabilities(key string, l list[capability]) {
	for _, c := range l.V {
		if len(l.V) > 1 && (c.V == allCapabilities || c.V == noCapabilities) {
			k.wrong(c.At, "%s in %s must have nothing else beside %s", key, k.where, c.V)
		}
	}
}
