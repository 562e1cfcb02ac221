// Package guest_test checks what the programs of the guest depend on, and what
// their images do.
package guest_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const module = "github.com/slipway-build/slipway/"

var (
	program = regexp.MustCompile(`go build .* \./(guest/\S+)`)
	tags    = regexp.MustCompile(`go build (?:.* )?-tags (\S+)`)
	source  = regexp.MustCompile(`(?m)^COPY ((?:exporter|guest|internal|publisher)\S*) (\S+)$`)
)

// folder returns the folder that holds a package. internal/contract is copied with
// the packages below it.
func folder(dir string) string {
	if strings.HasPrefix(dir, "internal/contract/") {
		return "internal/contract"
	}
	return dir
}

// TestSources compares the folders that a Dockerfile copies with the packages
// that its program links. A missing one fails the build of the image; another
// one makes the image depend on more than it holds.
func TestSources(t *testing.T) {
	files, err := filepath.Glob("../packages/*/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		built := program.FindSubmatch(text)
		if built == nil {
			continue
		}
		checked++
		list := exec.Command("go", "list", "-deps", "-tags", "", "./"+string(built[1]))
		if m := tags.FindSubmatch(text); m != nil {
			list.Args[4] = string(m[1])
		}
		list.Dir = ".."
		list.Env = append(os.Environ(), "GOOS=linux", "CGO_ENABLED=0")
		out, err := list.Output()
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		var want, got []string
		for name := range strings.Lines(string(out)) {
			if dir, ok := strings.CutPrefix(strings.TrimSpace(name), module); ok {
				want = append(want, folder(dir))
			}
		}
		for _, copied := range source.FindAllSubmatch(text, -1) {
			if string(copied[1]) != string(copied[2]) {
				t.Errorf("%s: %s", file, copied[0])
			}
			got = append(got, string(copied[1]))
		}
		slices.Sort(want)
		want = slices.Compact(want)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: -needs +copies\n%s", file, diff)
		}
	}
	if checked < 10 {
		t.Errorf("only %d packages have programs of guest/", checked)
	}
}

// TestSandbox checks that packages which others can talk to, or which run all
// the time, have the masked and read-only paths of Docker's containers. Without
// them root in a container needs no capability to take over the machine, for
// example through /proc/sys/kernel/core_pattern. docker and getty have all
// capabilities.
func TestSandbox(t *testing.T) {
	masked := []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
		"/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
	}
	readonly := []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
	for _, name := range []string{"attest", "chrony", "dhcpcd", "dm-crypt", "extend", "format", "installer", "logship", "logwrite", "losetup", "metadata", "modprobe", "nftables", "nginx", "node_exporter", "poweroff", "rngd", "sshd", "swap", "wireguard"} {
		text, err := os.ReadFile("../packages/" + name + "/Dockerfile")
		if err != nil {
			t.Fatal(err)
		}
		label := regexp.MustCompile(`(?s)LABEL org\.mobyproject\.config='(.*?)'`).FindSubmatch(text)
		if label == nil {
			t.Fatalf("%s has no label", name)
		}
		var config struct {
			Readonly, NoNewPrivileges  bool
			MaskedPaths, ReadonlyPaths []string
		}
		if err := json.Unmarshal(bytes.ReplaceAll(label[1], []byte("\\\n"), nil), &config); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := readonly
		if name == "dhcpcd" { // sets parameters of network interfaces
			want = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys/fs", "/proc/sys/kernel", "/proc/sys/vm", "/proc/sysrq-trigger"}
		}
		if !config.Readonly || !config.NoNewPrivileges {
			t.Errorf("%s: readonly %v, noNewPrivileges %v", name, config.Readonly, config.NoNewPrivileges)
		}
		if diff := cmp.Diff([2][]string{masked, want}, [2][]string{config.MaskedPaths, config.ReadonlyPaths}); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
	}
}

// TestImports checks the direction of imports: the guest uses what is shared, and
// the build side uses nothing of the guest.
func TestImports(t *testing.T) {
	list := exec.Command("go", "list", "-f", `{{$p := .ImportPath}}{{range .Imports}}{{$p}} {{.}}{{"\n"}}{{end}}`, "./...")
	list.Dir = ".."
	list.Env = append(os.Environ(), "GOOS=linux")
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	// Formats that the guest reads and writes, and disks in registries, which it
	// installs.
	shared := regexp.MustCompile(`^(internal/(contract|kernel)|exporter/(gpt|mbr|verity)|publisher/artifact)(/|$)`)
	edges := 0
	for edge := range strings.Lines(string(out)) {
		from, to, _ := strings.Cut(strings.TrimSpace(edge), " ")
		to, ours := strings.CutPrefix(to, module)
		if !ours {
			continue
		}
		edges++
		from = strings.TrimPrefix(from, module)
		switch inGuest, ofGuest := strings.HasPrefix(from, "guest/"), strings.HasPrefix(to, "guest/"); {
		case ofGuest && !inGuest:
			t.Errorf("%s imports %s of the guest", from, to)
		case inGuest && !ofGuest && !shared.MatchString(to):
			t.Errorf("%s of the guest imports %s", from, to)
		}
	}
	if edges < 50 {
		t.Errorf("only %d imports found", edges)
	}
}
