package client

import (
	"os"
	"strings"
	"testing"
)

func TestVulnerabilities(t *testing.T) {
	for version, want := range map[string]int{
		"v0.13.2": 4, "0.28.1": 2, "v0.31.1": 1, "v0.31.2": 0, "v0.31.2+unknown": 0, "v0.34.2-1-gabc": 0, "v1.0.0": 0,
		"v0.0.0+unknown": 4, "": 4, "(devel)": 4,
	} {
		if got := Vulnerabilities(version); len(got) != want {
			t.Errorf("%s: %v, want %d", version, got, want)
		}
	}
	if got := SafeVersion(); got != "0.31.2" {
		t.Errorf("safe version %s", got)
	}
}

// The documentation has the same facts as the table.
func TestAdvisoriesAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/reference/build-options.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range Advisories {
		if row := "| " + a.Name + " | " + a.Text + " | " + a.Fixed + " |"; !strings.Contains(string(page), row) {
			t.Errorf("the page lacks %q", row)
		}
	}
	for _, version := range []string{strings.TrimSuffix(Oldest, ".0"), SafeVersion()} {
		if !strings.Contains(string(page), "**"+version+"**") {
			t.Errorf("the page lacks version %s", version)
		}
	}
}
