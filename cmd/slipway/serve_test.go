package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/slipway-build/slipway/internal/testutil/artifacttest"
	"github.com/slipway-build/slipway/internal/testutil/selfsigned"
)

// startServe runs slipway serve until the test ends, and returns the lines that
// it prints.
func startServe(t *testing.T, args ...string) []string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	cmd := newCommand()
	cmd.SetOut(w)
	cmd.SetErr(io.Discard)
	cmd.SetArgs(append([]string{"serve", "--listen", "127.0.0.1:0"}, args...))
	ended := make(chan error, 1)
	go func() {
		err := cmd.ExecuteContext(ctx)
		w.CloseWithError(err)
		ended <- err
	}()
	t.Cleanup(func() {
		cancel()
		r.Close()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	var lines []string
	for scanner := bufio.NewScanner(r); scanner.Scan(); {
		lines = append(lines, scanner.Text())
		if strings.HasPrefix(scanner.Text(), "to boot") {
			return lines
		}
	}
	t.Fatalf("serve prints %q", lines)
	return nil
}

func fetch(t *testing.T, client *http.Client, url string) []byte {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, resp.Status, err)
	}
	return body
}

func TestServe(t *testing.T) {
	dir := t.TempDir()
	files := map[string][]byte{"m-kernel": []byte("kernel"), "m-initrd.img": []byte("initrd"), "m-cmdline": []byte("quiet\n")}
	files["cert"], files["key"] = selfsigned.PEM(t)
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lines := startServe(t, dir)
	if body := fetch(t, http.DefaultClient, lines[0]+"m/kernel"); string(body) != "kernel" {
		t.Errorf("kernel %q", body)
	}
	if want := "iPXE  " + lines[0] + "m.ipxe"; lines[1] != want || !strings.Contains(lines[len(lines)-1], "bootfile=http://10.0.2.2:") {
		t.Errorf("serve prints %q", lines)
	}

	lines = startServe(t, "--tls-cert", filepath.Join(dir, "cert"), "--tls-key", filepath.Join(dir, "key"), dir)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(files["cert"])
	for _, suites := range [][]uint16{nil, {tls.TLS_RSA_WITH_AES_128_GCM_SHA256}} { // the second of old firmware
		config := &tls.Config{RootCAs: roots, CipherSuites: suites}
		if suites != nil {
			config.MaxVersion = tls.VersionTLS12
		}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
		defer client.CloseIdleConnections()
		if body := fetch(t, client, lines[0]+"m.ipxe"); !strings.HasPrefix(lines[0], "https://") || !strings.Contains(string(body), " quiet\n") {
			t.Errorf("%s: script %q", lines[0], body)
		}
	}
	for _, args := range [][]string{{"serve", "--tls-cert", "cert", dir}, {"serve", t.TempDir()}, {"serve", filepath.Join(dir, "cert")}, {"serve"}} {
		if _, err := runCommand(t, args...); err == nil {
			t.Errorf("%q succeeds", args)
		}
	}
}

// TestServeRegistry serves a disk of a registry without a file.
func TestServeRegistry(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	ref := "oci://" + strings.TrimPrefix(server.URL, "http://") + "/m:v1"
	content := bytes.Repeat([]byte("slipway "), 200_000)
	file := filepath.Join(t.TempDir(), "m.efi")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	artifacttest.Push(t, ref, "uki", map[string]string{"amd64": file})
	lines := startServe(t, ref)
	if want := "UEFI  " + lines[0] + "m.efi"; lines[1] != want {
		t.Errorf("serve prints %q", lines)
	}
	if body := fetch(t, http.DefaultClient, lines[0]+"m.efi"); !bytes.Equal(body, content) {
		t.Errorf("%d bytes", len(body))
	}
}
