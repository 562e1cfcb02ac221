package machine

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/slipway-build/slipway/internal/suggest"
)

// An Rlimit is a resource limit of a process (getrlimit(2)).
type Rlimit struct {
	Text       string // as written: NAME,SOFT,HARD
	Name       string // in the form RLIMIT_NOFILE
	Soft, Hard uint64 // math.MaxUint64: unlimited
}

// rlimits are the names of getrlimit(2).
var rlimits = []string{"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack"}

// UnmarshalText parses NAME,SOFT,HARD. The name may be in any case, with or
// without RLIMIT_.
func (r *Rlimit) UnmarshalText(text []byte) error {
	parts := strings.Split(string(text), ",")
	if len(parts) != 3 {
		return errors.New("must be NAME,SOFT,HARD (for example nofile,1024,4096)")
	}
	name := strings.ToLower(strings.TrimSpace(parts[0]))
	name = strings.TrimPrefix(name, "rlimit_")
	if !slices.Contains(rlimits, name) {
		return fmt.Errorf("must start with a limit of getrlimit(2)%s", suggest.Among(name, rlimits))
	}
	soft, err1 := limit(parts[1])
	hard, err2 := limit(parts[2])
	switch {
	case err1 != nil || err2 != nil:
		return errors.New("must be NAME,SOFT,HARD, where SOFT and HARD are integers or unlimited")
	case soft > hard:
		return errors.New("has a soft limit above the hard limit")
	}
	*r = Rlimit{Text: string(text), Name: "RLIMIT_" + strings.ToUpper(name), Soft: soft, Hard: hard}
	return nil
}

func limit(text string) (uint64, error) {
	text = strings.TrimSpace(text)
	if strings.EqualFold(text, "unlimited") {
		return math.MaxUint64, nil
	}
	return strconv.ParseUint(text, 10, 64)
}

// Syntax describes the syntax in words and in JSON Schema.
func (Rlimit) Syntax() (words string, keywords map[string]any) {
	return "", map[string]any{"pattern": "^[^,]+,[^,]+,[^,]+$"}
}

// String returns the limit as written.
func (r Rlimit) String() string { return r.Text }

func (r Rlimit) spec() specs.POSIXRlimit {
	return specs.POSIXRlimit{Type: r.Name, Soft: r.Soft, Hard: r.Hard}
}
