package policy_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-build/slipway/internal/contract/policy"
)

func TestCycles(t *testing.T) {
	after := map[string][]string{"a": {"b", "c"}, "b": {"a"}, "c": {"c"}, "d": {"b"}}
	all := [][]string{{"a", "b", "a"}, {"c", "c"}}
	for limit, want := range map[int][][]string{0: nil, 1: all[:1], 2: all, 10: all} {
		if diff := cmp.Diff(want, policy.Cycles(after, limit)); diff != "" {
			t.Errorf("limit %d (-want +got):\n%s", limit, diff)
		}
	}
}

// The time is linear: a search that starts again at every name would take
// minutes.
func TestCyclesOfLongChain(t *testing.T) {
	const n = 200_000
	after := map[string][]string{}
	for i := range n {
		after[fmt.Sprint(i)] = []string{fmt.Sprint(i + 1)}
	}
	if cycles := policy.Cycles(after, 1); cycles != nil {
		t.Errorf("found %v", cycles)
	}
	after[fmt.Sprint(n)] = []string{"0"}
	if cycles := policy.Cycles(after, 1); len(cycles) != 1 || len(cycles[0]) != n+2 {
		t.Errorf("found %d cycles", len(cycles))
	}
}
