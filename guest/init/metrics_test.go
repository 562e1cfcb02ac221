package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/slipway-build/slipway/internal/contract/policy"
)

// values parses metrics and returns them by name and labels.
func values(t *testing.T, text []byte) map[string]float64 {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	all := map[string]float64{}
	for name, family := range families {
		if family.GetHelp() == "" {
			t.Errorf("%s has no help", name)
		}
		for _, m := range family.Metric {
			key := name
			for _, label := range m.Label {
				key += " " + label.GetName() + "=" + label.GetValue()
			}
			all[key] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return all
}

func TestMetrics(t *testing.T) {
	events := filepath.Join(t.TempDir(), "memory.events")
	if err := os.WriteFile(events, []byte("low 0\noom 3\noom_kill 2\noom_group_kill 0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	m := testMachine(io.Discard)
	m.times.add("kernel", 0, 1500*time.Millisecond)
	m.times.spans = append(m.times.spans,
		&span{name: `onboot 000-"x\y"` + "\n", begin: 2 * time.Second, end: 3 * time.Second, failed: true},
		&span{name: "kernel", begin: 9 * time.Second, end: 10 * time.Second}, // the same name
		&span{name: "runs", begin: time.Second})
	web, db := newService("web"), newService("db")
	web.state, web.starts, web.kills, web.memory, web.policy.Health, web.health = running, 3, 1, events, &policy.Health{}, healthy
	db.state, db.policy.Health, db.health = failed, &policy.Health{}, unhealthy
	m.services, m.up = []*service{web, db, newService("other")}, 12*time.Second
	got := values(t, m.metrics())
	want := map[string]float64{
		"slipway_boot_duration_seconds":                                 12,
		"slipway_boot_step_start_seconds step=kernel":                   0,
		"slipway_boot_step_duration_seconds step=kernel":                1.5,
		"slipway_boot_step_failed step=kernel":                          0,
		"slipway_boot_step_start_seconds step=onboot 000-\"x\\y\"\n":    2,
		"slipway_boot_step_duration_seconds step=onboot 000-\"x\\y\"\n": 1,
		"slipway_boot_step_failed step=onboot 000-\"x\\y\"\n":           1,
		"slipway_service_healthy service=web":                           1,
		"slipway_service_healthy service=db":                            0,
	}
	for _, v := range []struct {
		name                    string
		state                   state
		starts, restarts, kills float64
	}{{"web", running, 3, 2, 3}, {"db", failed, 0, 0, 0}, {"other", waiting, 0, 0, 0}} {
		want["slipway_service_starts_total service="+v.name] = v.starts
		want["slipway_service_restarts_total service="+v.name] = v.restarts
		want["slipway_service_oom_kills_total service="+v.name] = v.kills
		for _, s := range states {
			want["slipway_service_state service="+v.name+" state="+string(s)] = truth(s == v.state)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	// A machine without services has valid metrics, too.
	values(t, testMachine(io.Discard).metrics())
}

func TestWriteMetrics(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics", "x.prom")
	for _, text := range []string{"one\n", "two\n"} {
		if err := writeMetrics(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("%q, %v", got, err)
		}
	}
	if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
		t.Errorf("%v, %v", files, err)
	}
}
