package machine_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/machine"
)

var update = flag.Bool("update", false, "rewrite the expected output")

// TestDiagnostics reads testdata/diagnostics. Each file consists of parts, each
// below a line "-- NAME --": machine YAMLs, "include NAME" with a file to
// include, "args" with the values of args, "image NAME" with the config of an
// image as JSON, and at the end "want" with the expected diagnostics.
func TestDiagnostics(t *testing.T) {
	files, err := filepath.Glob("testdata/diagnostics/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			input, want, _ := bytes.Cut(text, []byte("-- want --\n"))
			got := diagnose(t, input)
			if *update {
				if err := os.WriteFile(file, append(input, "-- want --\n"+got...), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// diagnose returns all errors, or all warnings with their rules.
func diagnose(t *testing.T, input []byte) string {
	var sources []machine.Source
	images := map[string]machine.Image{}
	includes := map[string]string{}
	o := machine.Options{
		Args:     map[string]string{},
		Reserved: func(name string) bool { return name == "SIZE" },
		Include: func(name string) (machine.Source, error) {
			data, ok := includes[name]
			if !ok {
				return machine.Source{}, errors.New("not found")
			}
			return machine.Source{Name: name, Data: []byte(data)}, nil
		},
	}
	for _, part := range strings.Split("\n"+string(input), "\n-- ")[1:] {
		name, data, _ := strings.Cut(part, " --\n")
		if image, ok := strings.CutPrefix(name, "image "); ok {
			var config ocispec.ImageConfig
			if err := json.Unmarshal([]byte(data), &config); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			images[image] = machine.Image{Config: config}
			continue
		}
		if include, ok := strings.CutPrefix(name, "include "); ok {
			includes[include] = data + "\n"
			continue
		}
		if name == "args" {
			for line := range strings.SplitSeq(strings.TrimRight(data, "\n"), "\n") {
				name, value, _ := strings.Cut(line, "=")
				o.Args[name] = value
			}
			continue
		}
		sources = append(sources, machine.Source{Name: name, Data: []byte(data + "\n")})
	}
	m, err := o.Parse(sources...)
	if err != nil {
		return show(t, err)
	}
	for _, ref := range m.ImageRefs() {
		if _, ok := images[ref.Name]; !ok {
			images[ref.Name] = machine.Image{Config: ocispec.ImageConfig{Cmd: []string{"run"}}}
		}
	}
	plan, err := m.Plan(images)
	if err != nil {
		return show(t, err)
	}
	return show(t, m.Warnings()) + show(t, plan.Warnings)
}

func show(t *testing.T, err error) string {
	var found machine.Diagnostics
	if !errors.As(err, &found) {
		t.Fatal(err)
	}
	checkRanges(t, found)
	var b strings.Builder
	for _, d := range found {
		if d.Rule != "" {
			d.Message += " (" + d.Rule + ")"
		}
		fmt.Fprintln(&b, d)
	}
	return b.String()
}
