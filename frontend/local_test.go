package frontend

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/exporter/format"
)

// A client writes the formats itself only if the frontend image has the label.
func TestFormatsLabel(t *testing.T) {
	dockerfile, err := os.ReadFile("../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("LABEL %s=\"%d\"\n", formatsLabel, format.Version)
	if !strings.Contains(string(dockerfile), want) {
		t.Errorf("the Dockerfile of the frontend lacks %s", want)
	}
}
