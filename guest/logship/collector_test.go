package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var collectorPath = flag.String("collector", "", "path of an OpenTelemetry Collector; make test-boot builds that of testdata/otelcol")

// TestCollector sends to the OpenTelemetry Collector by TLS. The collector starts
// after the first lines.
func TestCollector(t *testing.T) {
	if *collectorPath == "" {
		t.Skip("takes minutes to build: make test-boot does")
	}
	cert, key := certificate(t)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	config := filepath.Join(t.TempDir(), "config.yaml")
	text := fmt.Sprintf(`
receivers: {otlp: {protocols: {http: {endpoint: %q, tls: {cert_file: %q, key_file: %q}}}}}
exporters: {debug: {verbosity: detailed}}
service:
  telemetry: {metrics: {level: none}}
  pipelines: {logs: {receivers: [otlp], exporters: [debug]}}
`, address, cert, key)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	tlsConfig, err := tlsFiles{authorities: cert}.load()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s := shipTo(t, ctx, "https://"+address+"/v1/logs", tlsConfig)
	s.queue.add(entry("web", "sent before the collector listens"))

	cmd := exec.CommandContext(ctx, *collectorPath, "--config", config)
	output, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cancel()
	s.queue.add(entry("db", "the last line"))
	missing := map[string]bool{
		"-> service.name: Str(web)": true, "-> service.name: Str(db)": true, "-> os.type: Str(linux)": true,
		"Timestamp: 2029-02-03 03:05:06.123456789 +0000 UTC": true, "InstrumentationScope memlogd": true,
		"Body: Str(sent before the collector listens)": true, "Body: Str(the last line)": true,
	}
	var all strings.Builder
	for lines := bufio.NewScanner(output); len(missing) > 0 && lines.Scan(); {
		fmt.Fprintln(&all, lines.Text())
		for text := range missing {
			if strings.Contains(lines.Text(), text) {
				delete(missing, text)
			}
		}
	}
	if len(missing) > 0 {
		t.Errorf("the collector does not print %v\n%s", missing, all.String())
	}
}

// shipTo starts a shipper that retries quickly.
func shipTo(t *testing.T, ctx context.Context, destination string, config *tls.Config) *shipper {
	t.Helper()
	to, err := newSink(ctx, destination, config)
	if err != nil {
		t.Fatal(err)
	}
	s := newShipper("test", to, 1<<20)
	s.firstDelay, s.maxDelay = 10*time.Millisecond, 50*time.Millisecond
	go s.run(ctx)
	return s
}
