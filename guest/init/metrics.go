package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// metricsFile is where node_exporter's textfile collector finds the metrics of
// the init, in the text format of Prometheus
// (https://prometheus.io/docs/instrumenting/exposition_formats/).
const metricsFile = "/run/metrics/slipway.prom"

// The metrics are written when a service has changed, and for the memory events
// of running ones at an interval. Changes that come together are written at once.
const (
	metricsInterval = 30 * time.Second
	metricsDelay    = 200 * time.Millisecond
)

// keepMetrics writes the metrics as long as the machine runs.
func (m *machine) keepMetrics() {
	var last []byte
	broken := false
	ticker := time.NewTicker(metricsInterval)
	for {
		text := m.metrics()
		if !bytes.Equal(text, last) {
			err := writeMetrics(metricsFile, text)
			if last = text; err != nil {
				last = nil
				if !broken { // the same error would repeat forever
					m.out.say("metrics: %v", err)
				}
			}
			broken = err != nil
		}
		select {
		case <-m.changed:
			time.Sleep(metricsDelay)
		case <-ticker.C:
		}
	}
}

// touch makes keepMetrics look at the machine.
func (m *machine) touch() {
	select {
	case m.changed <- struct{}{}:
	default: // it will
	}
}

// writeMetrics replaces the file, because a reader must see all of it.
func writeMetrics(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	partial := path + ".partial" // the collector reads only *.prom
	if err := os.WriteFile(partial, text, 0o644); err != nil {
		return err
	}
	return os.Rename(partial, path)
}

// A metric is a family of values of one name.
type metric struct {
	text *strings.Builder
	name string
}

func newMetric(b *strings.Builder, name, kind, help string) metric {
	fmt.Fprintf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
	return metric{b, name}
}

// add adds a value. labels are pairs of a name and a value.
func (f metric) add(value float64, labels ...string) {
	f.text.WriteString(f.name)
	for i, pair := range slices.Collect(slices.Chunk(labels, 2)) {
		separator := ","
		if i == 0 {
			separator = "{"
		}
		fmt.Fprintf(f.text, `%s%s="%s"`, separator, pair[0], labelEscapes.Replace(pair[1]))
	}
	if len(labels) > 0 {
		f.text.WriteByte('}')
	}
	f.text.WriteString(" " + strconv.FormatFloat(value, 'g', -1, 64) + "\n")
}

var labelEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// states are all states of a service.
var states = []state{waiting, starting, running, pausing, ended, failed, stopped}

// metrics returns the metrics of the machine.
func (m *machine) metrics() []byte {
	var b strings.Builder
	m.mu.Lock()
	services, up := m.services, m.up
	m.mu.Unlock()
	if up > 0 {
		newMetric(&b, "slipway_boot_duration_seconds", "gauge", "Time from the start of the kernel until the services had started.").add(up.Seconds())
	}
	m.times.metrics(&b)

	// A snapshot, so that the families agree.
	type values struct {
		name          string
		state         state
		checked, well bool
		starts, kills int
	}
	var all []values
	for _, s := range services {
		s.mu.Lock()
		all = append(all, values{s.name, s.state, s.policy.Health != nil, s.health == healthy, s.starts, s.kills + oomKills(s.memory)})
		s.mu.Unlock()
	}
	family := newMetric(&b, "slipway_service_state", "gauge", "Whether the service is in the state.")
	for _, v := range all {
		for _, one := range states {
			family.add(truth(v.state == one), "service", v.name, "state", string(one))
		}
	}
	family = newMetric(&b, "slipway_service_starts_total", "counter", "How often the service was started.")
	for _, v := range all {
		family.add(float64(v.starts), "service", v.name)
	}
	family = newMetric(&b, "slipway_service_restarts_total", "counter", "How often the service was started again.")
	for _, v := range all {
		family.add(float64(max(0, v.starts-1)), "service", v.name)
	}
	family = newMetric(&b, "slipway_service_oom_kills_total", "counter", "How many processes of the service the kernel has killed because they were out of memory.")
	for _, v := range all {
		family.add(float64(v.kills), "service", v.name)
	}
	family = newMetric(&b, "slipway_service_healthy", "gauge", "Whether the last checks of the health of the service have succeeded.")
	for _, v := range all {
		if v.checked {
			family.add(truth(v.well), "service", v.name)
		}
	}
	return []byte(b.String())
}

// metrics adds the steps that have ended.
func (t *timeline) metrics(b *strings.Builder) {
	t.mu.Lock()
	defer t.mu.Unlock()
	start := newMetric(b, "slipway_boot_step_start_seconds", "gauge", "When the step of the boot began, since the start of the kernel.")
	seen := map[string]bool{} // a name must not appear twice
	var steps []*span
	for _, s := range t.spans {
		if s.end > 0 && !seen[s.name] {
			seen[s.name] = true
			steps = append(steps, s)
		}
	}
	for _, s := range steps {
		start.add(s.begin.Seconds(), "step", s.name)
	}
	took := newMetric(b, "slipway_boot_step_duration_seconds", "gauge", "How long the step of the boot took.")
	for _, s := range steps {
		took.add((s.end - s.begin).Seconds(), "step", s.name)
	}
	failure := newMetric(b, "slipway_boot_step_failed", "gauge", "Whether the step of the boot failed.")
	for _, s := range steps {
		failure.add(truth(s.failed), "step", s.name)
	}
}
