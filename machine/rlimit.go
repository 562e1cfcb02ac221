package machine

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// rlimit is a resource limit of a process.
type rlimit struct {
	text  string
	limit specs.POSIXRlimit
}

// rlimits are the names of getrlimit(2).
var rlimits = []string{"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack"}

func (r *rlimit) parse(text string, _ *Field) error {
	parts := strings.Split(text, ",")
	if len(parts) != 3 {
		return errors.New("must be NAME,SOFT,HARD, such as nofile,1024,4096")
	}
	name := strings.ToLower(strings.TrimSpace(parts[0]))
	name = strings.TrimPrefix(name, "rlimit_")
	if !slices.Contains(rlimits, name) {
		return fmt.Errorf("names no limit of getrlimit(2)%s", Suggest(name, rlimits))
	}
	soft, err1 := limit(parts[1])
	hard, err2 := limit(parts[2])
	switch {
	case err1 != nil || err2 != nil:
		return errors.New("must be NAME,SOFT,HARD, where SOFT and HARD are whole numbers or unlimited")
	case soft > hard:
		return errors.New("has a soft limit above the hard one")
	}
	r.text, r.limit = text, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(name), Soft: soft, Hard: hard}
	return nil
}

func limit(text string) (uint64, error) {
	text = strings.TrimSpace(text)
	if strings.EqualFold(text, "unlimited") {
		return math.MaxUint64, nil
	}
	return strconv.ParseUint(text, 10, 64)
}

func (r *rlimit) schema() schemaNode { return schemaNode{"pattern": "^[^,]+,[^,]+,[^,]+$"} }

func (r *rlimit) String() string { return r.text }
