package bundle

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestLimits(t *testing.T) {
	const process = `{"args": ["x"], "oomScoreAdj": -800, "rlimits": [
		{"type": "RLIMIT_NOFILE", "soft": 30000, "hard": 40000},
		{"type": "RLIMIT_CORE", "soft": 1, "hard": 2},
		{"type": "RLIMIT_FUTURE", "soft": 30000, "hard": 40000}]}`
	var limits Limits
	limits.oomScore = -10
	for kind := range limits.hard {
		limits.hard[kind] = unix.RLIM_INFINITY
	}
	limits.hard[unix.RLIMIT_NOFILE] = 20000
	for _, test := range []struct {
		limits        *Limits
		process, want string
	}{
		{nil, process, process},
		{&limits, process, `{"args": ["x"], "oomScoreAdj": -10, "rlimits": [
			{"type": "RLIMIT_NOFILE", "soft": 20000, "hard": 20000},
			{"type": "RLIMIT_CORE", "soft": 1, "hard": 2},
			{"type": "RLIMIT_FUTURE", "soft": 30000, "hard": 40000}]}`},
		{&limits, `{"oomScoreAdj": 5}`, `{"oomScoreAdj": 5}`},
	} {
		spec := map[string]json.RawMessage{"process": json.RawMessage(test.process)}
		if err := test.limits.apply(spec); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(decode(t, test.want), decode(t, string(spec["process"]))); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	}
	for _, process := range []string{`[]`, `{"oomScoreAdj": "x"}`, `{"rlimits": 1}`} {
		if err := limits.apply(map[string]json.RawMessage{"process": json.RawMessage(process)}); err == nil {
			t.Errorf("%s is accepted", process)
		}
	}
}
