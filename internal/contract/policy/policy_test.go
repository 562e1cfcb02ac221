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
		{contract.Onboot, map[string]string{"build.slipway.hotplug": "disk"}, policy.Policy{Hotplug: policy.Disk}, ""},
		{contract.Onboot, map[string]string{"build.slipway.hotplug": "card"}, policy.Policy{}, "annotation build.slipway.hotplug must be disk"},
		{contract.Services, map[string]string{"build.slipway.restart": "yes"}, policy.Policy{}, "annotation build.slipway.restart must be no, on-failure or always"},
		{contract.Onboot, map[string]string{"build.slipway.timeout": "30"}, policy.Policy{}, "annotation build.slipway.timeout must be a duration, for example 30s or 5m"},
		{contract.Onboot, map[string]string{"build.slipway.timeout": "-1s"}, policy.Policy{}, "annotation build.slipway.timeout must be a duration, for example 30s or 5m"},
		{contract.Services, map[string]string{"build.slipway.health": "exec /bin/check -q", "build.slipway.boot-health": "5m"}, policy.Policy{
			Health: &policy.Health{Command: []string{"/bin/check", "-q"}, Interval: 30 * time.Second, Timeout: 10 * time.Second, StartPeriod: time.Minute, Failures: 3},
			Boot:   &policy.Boot{Timeout: 5 * time.Minute, Reboots: 3},
		}, ""},
		{contract.Services, map[string]string{
			"build.slipway.health": "tcp://127.0.0.1:80", "build.slipway.health-interval": "1s", "build.slipway.health-timeout": "2s",
			"build.slipway.health-start-period": "3s", "build.slipway.health-failures": "4", "build.slipway.boot-health": "1h", "build.slipway.boot-reboots": "0",
		}, policy.Policy{
			Health: &policy.Health{Address: "127.0.0.1:80", Interval: time.Second, Timeout: 2 * time.Second, StartPeriod: 3 * time.Second, Failures: 4},
			Boot:   &policy.Boot{Timeout: time.Hour},
		}, ""},
		{contract.Services, map[string]string{"build.slipway.health-failures": "4"}, policy.Policy{}, "annotation build.slipway.health-failures has no effect without build.slipway.health"},
		{contract.Services, map[string]string{"build.slipway.boot-reboots": "2"}, policy.Policy{}, "annotation build.slipway.boot-reboots has no effect without build.slipway.boot-health"},
		{contract.Services, map[string]string{"build.slipway.health": "udp://x"}, policy.Policy{}, "annotation build.slipway.health must be exec PROGRAM ARGUMENT…, exec [\"PROGRAM\", \"ARGUMENT\", …], tcp://HOST:PORT or http://HOST:PORT/PATH, where HOST is localhost or an IP address"},
		{contract.Onboot, map[string]string{"build.slipway.health-failures": "4"}, policy.Policy{}, ""},
		{contract.Services, map[string]string{"build.slipway.sandbox": "default"}, policy.Policy{Sandbox: true, Seccomp: true}, ""},
		{contract.Onboot, map[string]string{"build.slipway.sandbox": "default", "build.slipway.seccomp": "none"}, policy.Policy{Sandbox: true}, ""},
		{contract.Services, map[string]string{"build.slipway.sandbox": "none", "build.slipway.seccomp": "default"}, policy.Policy{Seccomp: true}, ""},
		{contract.Services, map[string]string{"build.slipway.sandbox": "yes"}, policy.Policy{}, "annotation build.slipway.sandbox must be default or none"},
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

func TestHealth(t *testing.T) {
	defaults := policy.Health{Interval: policy.HealthInterval, Timeout: policy.HealthTimeout, StartPeriod: policy.HealthStartPeriod, Failures: policy.HealthFailures}
	for value, want := range map[string]policy.Health{
		"http://localhost":                 {URL: "http://localhost"},
		"http://[::1]:8080/a?b=c":          {URL: "http://[::1]:8080/a?b=c"},
		"tcp://localhost:22":               {Address: "localhost:22"},
		"tcp://[fd00::1]:22":               {Address: "[fd00::1]:22"},
		"exec true":                        {Command: []string{"true"}},
		`exec ["/bin/sh", "-c", "test a"]`: {Command: []string{"/bin/sh", "-c", "test a"}},
	} {
		p, err := policy.Parse(contract.Services, map[string]string{"build.slipway.health": value})
		want.Interval, want.Timeout, want.StartPeriod, want.Failures = defaults.Interval, defaults.Timeout, defaults.StartPeriod, defaults.Failures
		if diff := cmp.Diff(&want, p.Health); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", value, err, diff)
		}
	}
	for _, value := range []string{
		"", "exec", "exec ", "exectrue", "exec []", `exec [""]`, `exec ["a"`, "http://example.com/", "http://", "https://127.0.0.1/", "http://u:p@127.0.0.1/",
		"http://127.0.0.1:0/", "http://127.0.0.1:70000/", "http://127.0.0.1/#x", "tcp://127.0.0.1", "tcp://127.0.0.1:80/x", "127.0.0.1:80", "http:127.0.0.1",
		"http://127.0.0.1/\r\nx: y",
	} {
		if p, err := policy.Parse(contract.Services, map[string]string{"build.slipway.health": value}); err == nil || p.Health != nil {
			t.Errorf("%q: %+v, %v", value, p.Health, err)
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
