package machine

import (
	"slices"

	"github.com/slipway-build/slipway/internal/contract/policy"
	"github.com/slipway-build/slipway/internal/schema"
)

// The restrictions of Docker's containers (moby, daemon/pkg/oci: DefaultLinuxSpec
// and caps.DefaultCapabilities). /sys is read-only through its mount there.
var (
	sandboxCapabilities = []Capability{
		"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD", "CAP_NET_BIND_SERVICE",
		"CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
	}
	sandboxMasked = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
		"/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
	}
	sandboxReadonly = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/sys"}
)

// sandbox restricts a container whose annotations ask for it, except where the
// YAML or the label of its image decides. node says what they set.
func (p *planner) sandbox(s section, c *Container, node *schema.Node) {
	order, err := policy.Parse(s.name, c.Annotations)
	if err != nil || !order.Sandbox {
		return
	}
	if !node.Key("capabilities").Set() {
		c.Capabilities = slices.Concat(sandboxCapabilities, c.Capabilities)
	}
	if !node.Key("noNewPrivileges").Set() {
		c.NoNewPrivileges = true
	}
	if !node.Key("maskedPaths").Set() {
		c.MaskedPaths = sandboxMasked
	}
	if !node.Key("readonlyPaths").Set() {
		c.ReadonlyPaths = sandboxReadonly
	}
}
