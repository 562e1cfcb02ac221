package guest

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/selfsigned"
	"github.com/slipway-build/slipway/internal/testutil/stack"
	"github.com/slipway-build/slipway/internal/vm"
)

// TestLogs boots a machine that sends its logs to rsyslog by TLS, writes them to a
// disk, and serves metrics of its services.
func TestLogs(t *testing.T) {
	if !*bootAll {
		t.Skip("installs rsyslog: make test-boot does")
	}
	t.Parallel()
	stack.Require(t)
	rsyslog := t.TempDir()
	stack.MustBuildx(t, ".", "-o", "type=oci,tar=false,dest="+rsyslog, "testdata/rsyslog")
	certificate, key := selfsigned.PEM(t)
	file := fill(t, "logs.yml", map[string][]byte{"CERTIFICATE": certificate, "KEY": key})
	disk := filepath.Join(t.TempDir(), "disk")
	if err := errors.Join(os.WriteFile(disk, nil, 0o644), os.Truncate(disk, 64<<20)); err != nil {
		t.Fatal(err)
	}
	dir := build(t, file, "--build-context", "test/rsyslog:v1=oci-layout://"+rsyslog)
	m := bootWith(t, dir, vm.Config{NoNetwork: true, Data: []vm.Drive{{File: disk}}})
	m.await(t, `REPORT over`)
	m.await(t, `REPORT rsyslog: info linuxkit says \[meta sequenceId="\d+"\] ?line 60 of some text`)
	m.says(t,
		`REPORT rsyslog: info linuxkit says \[meta sequenceId="\d+"\] ?line 1 of some text`,
		`REPORT files: says\.log says\.log\.1 bounded 1`,
		`REPORT metrics: node_textfile_scrape_error 0 slipway_boot_step_duration_seconds\{step="kernel"\} [\d.]+ `+
			`slipway_service_starts_total\{service="says"\} 1 slipway_service_state\{service="hog",state="running"\} [01] slipway_service_state\{service="says",state="running"\} 1`,
		`REPORT restarts: slipway_service_restarts_total\{service="hog"\} \d+`,
	)
}

// fill writes a machine of testdata with values in the place of names, and returns
// its path.
func fill(t *testing.T, file string, values map[string][]byte) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range values {
		quoted, err := json.Marshal(string(value))
		if err != nil {
			t.Fatal(err)
		}
		text = bytes.ReplaceAll(text, []byte("contents: "+name), append([]byte("contents: "), quoted...))
	}
	path := filepath.Join(t.TempDir(), file)
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
