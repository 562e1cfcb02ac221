package report

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/need"
)

var chromium = flag.Bool("chromium", false, "open the pages in Chromium")

// open returns the document that Chromium makes of a page, and the messages on
// its console. The policy of the page makes every attempt to load something a
// message.
func open(t *testing.T, page string) (document, console string) {
	t.Helper()
	cmd := exec.Command("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--user-data-dir="+t.TempDir(),
		"--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--dump-dom", "file://"+page)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, stderr.Bytes())
	}
	for line := range strings.Lines(stderr.String()) {
		if strings.Contains(line, ":CONSOLE") {
			console += line
		}
	}
	return stdout.String(), console
}

// Browsers show the pages without messages on the console, and so without
// loading anything.
func TestChromium(t *testing.T) {
	if !*chromium {
		t.Skip("make test-boot opens the pages in Chromium")
	}
	need.Program(t, "chromium", "chromium")
	for name, want := range map[string][]string{
		"web.html":  {"<title>web.raw</title>", `role="img" aria-label="Treemap`, "services/web"},
		"diff.html": {"web.raw", "etc/new"},
	} {
		page, err := filepath.Abs(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		document, console := open(t, page)
		if console != "" {
			t.Errorf("%s: messages on the console:\n%s", name, console)
		}
		for _, text := range want {
			if !strings.Contains(document, text) {
				t.Errorf("%s: no %q", name, text)
			}
		}

		// The same page with an image of another host.
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		bad := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(bad, fmt.Appendf(text, "<img src=%q>", "http://localhost:9/x.png"), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, console := open(t, bad); !strings.Contains(console, "Content Security Policy") {
			t.Errorf("%s: no message about an image of another host:\n%s", name, console)
		}
	}
}
