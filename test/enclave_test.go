package test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-build/slipway/internal/testutil/eifjudge"
	"github.com/slipway-build/slipway/internal/testutil/stack"
)

// TestEnclaveImage checks that two different builders write the same enclave image
// of an example, that AWS's library measures the same in it, also when the library
// builds the image from the same parts, and that every change of a part or of the
// machine changes the registers that measure it, and no others.
func TestEnclaveImage(t *testing.T) {
	stack.Require(t)
	eifjudge.Require(t)
	text, err := os.ReadFile("../examples/enclave.yml")
	if err != nil {
		t.Fatal(err)
	}
	a, b := usual(t), unusual(t)
	for _, e := range []*environment{a, b} {
		e.write(t, "machine.yml", string(text))
		e.machine(t, "--target=eif", "-o", "out")
	}
	sameTrees(t, a, b, "out")

	registersOf := func(folder string) map[string]string {
		t.Helper()
		registers, err := os.ReadFile(filepath.Join(a.dir, folder, "machine.pcrs.json"))
		if err != nil {
			t.Fatal(err)
		}
		return eifjudge.Registers(t, registers)
	}
	built := filepath.Join(a.dir, "out", "machine.eif")
	want := registersOf("out")
	t.Log(want)
	if diff := cmp.Diff(want, eifjudge.Measure(t, "describe", built)); diff != "" {
		t.Errorf("AWS's library measures differently (-slipway +library):\n%s", diff)
	}
	image, _ := eifjudge.Read(t, built)
	parts := eifjudge.Parts(t, image)
	library := func(parts ...string) map[string]string {
		t.Helper()
		return eifjudge.Measure(t, slices.Concat([]string{"build", filepath.Join(t.TempDir(), "library.eif")}, parts)...)
	}
	if diff := cmp.Diff(want, library(parts...)); diff != "" {
		t.Errorf("AWS's library measures differently in its own image (-slipway +library):\n%s", diff)
	}

	changed := func(what string, got map[string]string, registers ...string) {
		t.Helper()
		var differ []string
		for _, name := range slices.Sorted(maps.Keys(want)) {
			if got[name] != want[name] {
				differ = append(differ, name)
			}
		}
		if !slices.Equal(differ, registers) {
			t.Errorf("another %s changes %q, want %q", what, differ, registers)
		}
	}
	if len(parts) != 4 {
		t.Fatalf("%d parts, want a kernel, a command line and two ramdisks", len(parts))
	}
	for i, registers := range map[int][]string{0: {"PCR0", "PCR1"}, 2: {"PCR0", "PCR1"}, 3: {"PCR0", "PCR2"}} {
		changed("bit of part "+filepath.Base(parts[i]), library(slices.Replace(slices.Clone(parts), i, i+1, flipBit(t, parts[i]))...), registers...)
	}
	for _, change := range []struct {
		what, old, new string
		registers      []string
	}{
		{"command of a service", "the enclave runs on", "another enclave runs on", []string{"PCR0", "PCR2"}},
		{"kernel argument", "panic=30", "panic=31", []string{"PCR0", "PCR1"}},
		{"init", "  - slipwaybuild/runc:v1\n", "  - slipwaybuild/runc:v1\n  - slipwaybuild/ca-certificates:v1\n", []string{"PCR0", "PCR1"}},
	} {
		if strings.Count(string(text), change.old) != 1 {
			t.Fatalf("the example does not have %q once", change.old)
		}
		a.write(t, "machine.yml", strings.Replace(string(text), change.old, change.new, 1))
		a.machine(t, "--target=eif", "-o", "changed")
		changed(change.what, registersOf("changed"), change.registers...)
	}
}

// flipBit returns a copy of a file with one changed bit in its middle.
func flipBit(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	copied := filepath.Join(t.TempDir(), "changed")
	if err := os.WriteFile(copied, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return copied
}
