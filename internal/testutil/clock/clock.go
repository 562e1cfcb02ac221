// Package clock compiles Go programs whose clock is ahead or behind.
package clock

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Build compiles packages of the Go module in the directory dir into the
// directory out. In the programs, time.Now is ahead by shift, which can be
// negative.
func Build(t testing.TB, out, dir string, shift time.Duration, packages ...string) {
	t.Helper()
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(strings.TrimSpace(string(goroot)), "src", "time", "time.go")
	data, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	const now = "sec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(data), now) != 1 {
		t.Fatalf("%s does not contain %q exactly once: time.Now changed, change this function", source, now)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{source: filepath.Join(out, "time.go")}})
	if err != nil {
		t.Fatal(err)
	}
	shifted := strings.Replace(string(data), now, now+fmt.Sprintf("\tsec += %d\n", int64(shift/time.Second)), 1)
	for name, text := range map[string]string{"time.go": shifted, "overlay.json": string(overlay)} {
		if err := os.WriteFile(filepath.Join(out, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", append([]string{"build", "-overlay", filepath.Join(out, "overlay.json"), "-trimpath", "-buildvcs=false", "-o", out + "/"}, packages...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
}
