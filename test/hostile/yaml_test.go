package hostile

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/internal/testutil/stack"
)

// bomb is a YAML whose aliases stand for 10^depth values.
func bomb(depth int) string {
	var b strings.Builder
	b.WriteString("services:\n  - name: a\n    image: slipwaybuild/rngd:v1\n    env:\n      - &a0 x\n")
	for i := 1; i <= depth; i++ {
		fmt.Fprintf(&b, "      - &a%d [%s]\n", i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 10), ","))
	}
	return b.String()
}

const kernelYAML = "init: [slipwaybuild/init:v1]\nkernel:\n  image: slipwaybuild/kernel:v1\n"

// TestYAML builds machine YAMLs, and passes options, that somebody made to harm.
func TestYAML(t *testing.T) {
	stack.Require(t)
	for _, c := range []struct {
		name, yaml string
		args       []string
		want       string // the error
		line       string
	}{
		{"alias bomb", bomb(9), nil, "must be a string", ">>>"},
		{"alias cycle", "services: &a\n  - *a\n", nil, "a", ">>>"},
		{"merge bomb", "a: &a {x: 1}\nb: &b {<<: [*a,*a]}\nkernel: {<<: [*b,*b]}\n", nil, "unknown key", ">>>"},
		{"100 MB", "files:\n  - path: a\n    contents: \"" + strings.Repeat("x", 100<<20) + "\"\n", nil, "exceeds maximum allowed size", ""},
		{"deep", "services: " + strings.Repeat("[", 100_000) + "\n", nil, "", ">>>"},
		{"deep blocks", "services:\n" + func() string {
			var b strings.Builder
			for i := range 2000 {
				b.WriteString(strings.Repeat(" ", i) + "-\n")
			}
			return b.String()
		}(), nil, "", ">>>"},
		{"cmdline of GRUB", kernelYAML + "  cmdline: \"a'\\\" ; insmod evil; '\"\n", []string{"--target=raw"}, "kernel command line", ">>>   cmdline"},
		{"cmdline of a loader entry", kernelYAML + "  cmdline: \"a\\nlinux /evil\"\n", []string{"--target=iso"}, `control character '\n'`, ">>>   cmdline"},
		{"cmdline with NUL", kernelYAML + "  cmdline: \"a\\0b\"\n", []string{"--target=raw-efi"}, `control character '\x00'`, ">>>   cmdline"},
		{"name of a service", "services:\n  - name: \"../../etc\"\n    image: slipwaybuild/rngd:v1\n", nil, "name", ">>>   - name:"},
		{"name with an escape", "services:\n  - name: \"a\\e[31m\"\n    image: slipwaybuild/rngd:v1\n", nil, "name", ">>>   - name:"},
		{"file outside", "files:\n  - path: ../../etc/passwd\n    contents: x\n", nil, "path", ">>>   - path:"},
		{"file with NUL", "files:\n  - path: \"etc/a\\0b\"\n    contents: x\n", nil, "path", ">>>   - path:"},
		{"long file", "files:\n  - path: etc/" + long + "n\n    contents: x\n", nil, "255", ">>>   - path:"},
		{"long link", "files:\n  - path: etc/a\n    symlink: \"" + strings.Repeat("x", 4096) + "\"\n", nil, "at most 4095 bytes", ">>>     symlink"},
		{"source outside", "files:\n  - path: etc/a\n    source: ../../../../etc/passwd\n", nil, "source", ">>>     source"},
		{"image with control characters", "services:\n  - name: a\n    image: \"a\\e]0;x\\a\"\n", nil, "image", ">>>     image"},
		{"package outside", "services:\n  - name: a\n    image: \"@pkg:../../../etc\"\n", nil, "outside of the build context", ">>>     image"},
		{"package with control characters", "services:\n  - name: a\n    image: \"@pkg:a\\e]0;x\\a\"\n", nil, "", ">>>     image"},
		{"NAME", kernelYAML, []string{"--build-arg=NAME=../../evil"}, "not a file name", ""},
		{"NAME with an escape", kernelYAML, []string{"--build-arg=NAME=a\x1b[31m"}, "not a file name", ""},
		{"NAME with a newline", kernelYAML, []string{"--build-arg=NAME=a\nb"}, "not a file name", ""},
		{"long NAME", kernelYAML, []string{"--build-arg=NAME=" + long}, "255 bytes", ""},
		{"SIZE", kernelYAML, []string{"--target=raw", "--build-arg=SIZE=1G,2G"}, "not a size", ""},
		{"SIZE with a newline", kernelYAML, []string{"--target=raw", "--build-arg=SIZE=1G\n--format"}, "not a size", ""},
		{"large SIZE", kernelYAML, []string{"--target=raw", "--build-arg=SIZE=9223372036854775807"}, "", ""},
		{"OVERLAYS", kernelYAML, []string{"--build-arg=OVERLAYS=../../../etc/passwd"}, "OVERLAYS", ""},
		{"OVERLAYS with an escape", kernelYAML, []string{"--build-arg=OVERLAYS=\x1b[31m,,a"}, "OVERLAYS", ""},
		{"target", kernelYAML, []string{"--target=raw/../tar"}, "unknown format", ""},
		{"target with an escape", kernelYAML, []string{"--target=tar\x1b[31m"}, "unknown format", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := newDir(t, c.yaml)
			start := time.Now()
			args := append([]string{"--target=tar"}, c.args...)
			out, err := build(dir, append(args, "-o", "out")...)
			if err == nil {
				t.Error("the build succeeded")
			}
			if took := time.Since(start); took > time.Minute {
				t.Errorf("the error took %v", took)
			}
			for _, want := range []string{c.want, c.line} {
				if !strings.Contains(out, want) {
					t.Errorf("the output lacks %q", want)
				}
			}
			if files, _ := os.ReadDir(filepath.Join(dir, "out")); len(files) > 0 {
				t.Errorf("the failed build left %v", files)
			}
			printable(t, out)
			if t.Failed() {
				t.Log(shorten(out))
			}
		})
	}
}

// TestQuoting builds a command line of characters with a meaning in shells,
// GRUB and loader entries, which must reach the kernel as they are.
func TestQuoting(t *testing.T) {
	stack.Require(t)
	const cmdline = "$HOME ${x} $(reboot) `reboot` %s %% #c ;|&<> *? title=x linux=/evil"
	dir := newDir(t, kernelYAML+"  cmdline: '"+cmdline+"'\n")
	if out, err := build(dir, "--target=iso", "-o", "out"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cfg := filepath.Join(dir, "grub.cfg")
	out, err := exec.Command("xorriso", "-osirrox", "on", "-indev", filepath.Join(dir, "out/machine.iso"), "-extract", "/boot/grub/grub.cfg", cfg).CombinedOutput()
	if err != nil {
		t.Fatalf("xorriso: %v\n%s", err, out)
	}
	script, err := os.ReadFile(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	for _, word := range strings.Split(cmdline, " ") {
		fmt.Fprintf(&want, " '%s'", word)
	}
	if !strings.HasPrefix(string(script), "linux /boot/kernel"+want.String()+"\n") {
		t.Errorf("grub.cfg: %q", script)
	}
	if out, err := exec.Command("grub-script-check", cfg).CombinedOutput(); err != nil {
		t.Errorf("grub-script-check: %v\n%s", err, out)
	}
}
