package policy_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/contract/policy"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		section string
		text    map[string]string
		want    policy.Policy
		err     string
	}{
		{contract.Services, nil, policy.Policy{}, ""},
		{contract.Services, map[string]string{"org.example.team": "web"}, policy.Policy{}, ""},
		{contract.Services, map[string]string{
			"build.slipway.restart": "on-failure", "build.slipway.after": "a, b", "build.slipway.timeout": "1m30s", "build.slipway.seccomp": "default",
		}, policy.Policy{Restart: policy.OnFailure, After: []string{"a", "b"}, Timeout: 90 * time.Second, Seccomp: true}, ""},
		{contract.Onboot, map[string]string{"build.slipway.failure": "reboot"}, policy.Policy{Failure: policy.Reboot}, ""},
		{contract.Services, map[string]string{"build.slipway.failure": "halt"}, policy.Policy{}, ""},
		{contract.Services, map[string]string{"build.slipway.restart": "yes"}, policy.Policy{}, "annotation build.slipway.restart must be no, on-failure or always"},
		{contract.Onboot, map[string]string{"build.slipway.timeout": "30"}, policy.Policy{}, "annotation build.slipway.timeout must be a duration, for example 30s or 5m"},
		{contract.Onboot, map[string]string{"build.slipway.timeout": "-1s"}, policy.Policy{}, "annotation build.slipway.timeout must be a duration, for example 30s or 5m"},
		{contract.Services, map[string]string{"build.slipway.after": "a,,b"}, policy.Policy{After: []string{"a"}}, "annotation build.slipway.after must be a comma-separated list of names of services"},
	} {
		got, err := policy.Parse(c.section, c.text)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if diff := cmp.Diff(c.want, got); diff != "" || text != c.err {
			t.Errorf("%s %v: %q\n%s", c.section, c.text, text, diff)
		}
	}
	for name, want := range map[string]error{
		"build.slipway.restrat": policy.ErrUnknown,
		"build.slipway.failure": policy.ErrSection,
		"build.other.restart":   nil,
	} {
		if err := new(policy.Policy).Set(contract.Services, name, "halt"); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}

// The examples of the reference page are valid.
func TestKeys(t *testing.T) {
	if !slices.IsSortedFunc(policy.Keys(), func(a, b policy.Key) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("the keys are not sorted")
	}
	for _, k := range policy.Keys() {
		for _, section := range k.Sections {
			if err := new(policy.Policy).Set(section, k.Name, k.Example); err != nil {
				t.Errorf("%s: %s of %s: %v", section, k.Example, k.Name, err)
			}
		}
	}
}

func TestCycle(t *testing.T) {
	for _, c := range []struct {
		after map[string][]string
		want  string
	}{
		{nil, ""},
		{map[string][]string{"a": {"b", "c"}, "b": {"c"}, "c": nil}, ""},
		{map[string][]string{"a": {"elsewhere"}}, ""},
		{map[string][]string{"a": {"a"}}, "a a"},
		{map[string][]string{"a": {"b"}, "b": {"c"}, "c": {"b"}}, "b c b"},
	} {
		if got := strings.Join(policy.Cycle(c.after), " "); got != c.want {
			t.Errorf("%v: %q, want %q", c.after, got, c.want)
		}
	}
}
