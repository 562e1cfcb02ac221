package bundle

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Limits are what a process without CAP_SYS_RESOURCE can grant to others: no
// higher resource limits than its own (getrlimit(2)), and no lower
// oom_score_adj (proc_pid_oom_score_adj(5)).
type Limits struct {
	hard     [16]uint64 // by number of the resource
	oomScore int
}

// limitNames are the names of the resources by number (getrlimit(2)), which are
// the same on all architectures that Slipway supports.
var limitNames = []string{
	"CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE",
	"MEMLOCK", "AS", "LOCKS", "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME",
}

// OwnLimits returns the limits of this process, or nil if it has
// CAP_SYS_RESOURCE, to which none apply.
var OwnLimits = sync.OnceValue(func() *Limits {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil || data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0 {
		return nil
	}
	var l Limits
	for kind := range l.hard {
		limit := unix.Rlimit{Max: unix.RLIM_INFINITY}
		unix.Getrlimit(kind, &limit) // on an error the runtime reports what it cannot set
		l.hard[kind] = limit.Max
	}
	if text, err := os.ReadFile("/proc/self/oom_score_adj"); err == nil {
		l.oomScore, _ = strconv.Atoi(strings.TrimSpace(string(text))) // the kernel writes a number
	}
	return &l
})

// Hard returns the hard limit of a resource, one of the constants unix.RLIMIT_*.
func (l *Limits) Hard(kind int) uint64 { return l.hard[kind] }

// concern reports whether a config.json sets limits that apply may lower.
func (l *Limits) concern(file string) (bool, error) {
	if l == nil {
		return false, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return false, err
	}
	var spec struct {
		Process struct {
			OOMScoreAdj json.RawMessage `json:"oomScoreAdj"`
			Rlimits     json.RawMessage `json:"rlimits"`
		} `json:"process"`
	}
	if err := json.Unmarshal(text, &spec); err != nil {
		return false, fmt.Errorf("%s: %w", file, err)
	}
	return spec.Process.OOMScoreAdj != nil || spec.Process.Rlimits != nil, nil
}

// apply lowers the limits in a config.json to l.
func (l *Limits) apply(spec map[string]json.RawMessage) error {
	if l == nil || spec["process"] == nil {
		return nil
	}
	var process map[string]json.RawMessage
	if err := json.Unmarshal(spec["process"], &process); err != nil {
		return err
	}
	if text := process["oomScoreAdj"]; text != nil {
		var score int
		if err := json.Unmarshal(text, &score); err != nil {
			return fmt.Errorf("oomScoreAdj: %w", err)
		}
		process["oomScoreAdj"] = strconv.AppendInt(nil, int64(max(score, l.oomScore)), 10)
	}
	if text := process["rlimits"]; text != nil {
		var limits []specs.POSIXRlimit
		if err := json.Unmarshal(text, &limits); err != nil {
			return fmt.Errorf("rlimits: %w", err)
		}
		for i := range limits {
			if kind := slices.Index(limitNames, strings.TrimPrefix(limits[i].Type, "RLIMIT_")); kind >= 0 {
				limits[i].Hard = min(limits[i].Hard, l.hard[kind])
				limits[i].Soft = min(limits[i].Soft, limits[i].Hard)
			}
		}
		process["rlimits"], _ = json.Marshal(limits) // strings and numbers can always be encoded
	}
	var err error
	spec["process"], err = json.Marshal(process)
	return err
}
