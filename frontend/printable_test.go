package frontend

import (
	"strings"
	"testing"
	"unicode"

	"github.com/moby/buildkit/client/llb"

	"github.com/slipway-build/slipway/internal/printable"
	"github.com/slipway-build/slipway/machine"
)

// controls is a text that would control a terminal.
const controls = "\x1b]0;title\x07\u202e"

// TestMessagesArePrintable passes control characters wherever a user can.
func TestMessagesArePrintable(t *testing.T) {
	var messages []string
	for _, args := range []map[string]string{
		{"NAME": "a" + controls}, {"SIZE": controls}, {"MAP": controls}, {"COMPRESSION": controls}, {"SOURCE_DATE_EPOCH": controls}, {"NAME": "a/" + controls},
	} {
		_, err := parseOptions("raw", args, "a.yml")
		if err == nil {
			t.Errorf("%q: no error", args)
			continue
		}
		messages = append(messages, err.Error())
	}
	_, err := parseOptions(controls, nil, "a.yml")
	if err == nil {
		t.Error("no error for the target")
	} else {
		messages = append(messages, err.Error())
	}
	options, err := parseOptions("raw", map[string]string{controls: "1"}, "a.yml")
	if err != nil {
		t.Error(err)
	}
	messages = append(messages, options.warnings...)
	report := planReport{
		Cmdline:    controls,
		Components: []planComponent{{Name: controls, Image: controls}},
		Containers: []planContainer{{Place: controls, Config: []byte(`{"process": {"args": ["\u001b[31m"]}}`)}},
		Files:      []planFile{{Path: controls, From: controls}},
	}
	messages = append(messages, string(report.text()))
	for _, m := range messages {
		if i := strings.IndexFunc(m, func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' }); i >= 0 {
			t.Errorf("a message is not printable: %q", m)
		}
	}
	if got := (sources{{SourceMap: &llb.SourceMap{Filename: "a.yml"}}}).errorAt(machine.Range{}, "image %s", controls).Message; got != printable.Line("image "+controls) {
		t.Errorf("errorAt: %q", got)
	}
}

// TestNameTooLong builds with a name that no file can have.
func TestNameTooLong(t *testing.T) {
	_, err := parseOptions("kernel+squashfs", map[string]string{"NAME": strings.Repeat("n", 250)}, "a.yml")
	if err == nil || !strings.Contains(err.Error(), "a file name has at most 255 bytes") {
		t.Errorf("error %v", err)
	}
	if _, err := parseOptions("tar", map[string]string{"NAME": strings.Repeat("n", 250)}, "a.yml"); err != nil {
		t.Error(err)
	}
}
