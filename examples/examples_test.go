package examples

import (
	"strings"
	"testing"
)

// Every example says what it is, and editors find its schema.
func TestAll(t *testing.T) {
	all, err := All()
	if err != nil || len(all) < 3 {
		t.Fatalf("%d examples, %v", len(all), err)
	}
	for _, e := range all {
		if len(e.Description) < 10 || len(e.Description) > 100 || strings.HasSuffix(e.Description, ".") {
			t.Errorf("%s: description %q", e.Name, e.Description)
		}
		if !strings.HasPrefix(e.Text, "# syntax=slipwaybuild/slipway:1\n") {
			t.Errorf("%s does not start with its syntax", e.Name)
		}
		if !strings.Contains(e.Text, "\n"+Schema+"\n") {
			t.Errorf("%s has no line %s", e.Name, Schema)
		}
	}
}

func TestDescribe(t *testing.T) {
	for text, want := range map[string]string{
		"# syntax=a\n#\n# A machine\n# for tests. More.\n# x\n":     "A machine for tests",
		"# syntax=a\n# check=skip=x\n#\n# One line.\n#\nkernel: {}": "One line",
		"kernel: {}\n": "",
	} {
		if got := describe(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}
