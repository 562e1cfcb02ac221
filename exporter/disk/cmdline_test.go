package disk

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/internal/kernel/cmdline"
)

func TestCmdlineUnderBIOS(t *testing.T) {
	for cmdline, want := range map[string]string{
		"":                                "",
		"console=ttyS0 quiet":             "console=ttyS0 quiet",
		"  two  blanks  ":                 "  two  blanks  ",
		`"a b"`:                           `"a b"`,
		`a="b c" d`:                       `"a=b c" d`,
		`dyndbg="file x.c +p; func y -p"`: `"dyndbg=file x.c +p; func y -p"`,
		`a="b"`:                           "a=b",
		`"a"`:                             "a",
		`a=""`:                            "a=",
		`$HOME ${x} %s %% #c ;|&<>`:       `$HOME ${x} %s %% #c ;|&<>`,
		"init=/bin/ünï -- --flag":         "init=/bin/ünï -- --flag",
	} {
		d, err := New(Hybrid, Contents{Kernel: text("k"), Initrd: []sparse.Content{text("i")}, Cmdline: cmdline}, testLoaders(), 0, time.Unix(0, 0))
		if err != nil {
			t.Errorf("%q: %v", cmdline, err)
			continue
		}
		if got := d.BIOSCmdline; got != want {
			t.Errorf("%q becomes %q, want %q", cmdline, got, want)
		}
	}
}

func TestCmdlineErrors(t *testing.T) {
	for cmdline, want := range map[string]string{
		`a=b"c d"`:                `GRUB, which boots this disk under BIOS, cannot pass on a=b"c d": use quotes around a whole value only`,
		`a="b"c`:                  `cannot pass on a="b"c: use quotes`,
		`a="b"c"d"`:               `use quotes around`,
		`x a="b c`:                `cannot pass on a="b c: use quotes`,
		`a ""`:                    `cannot pass on "": use quotes`,
		`="a b"`:                  `use quotes around`,
		`it's`:                    `cannot pass on it's: remove the single quote`,
		`path=C:\x41`:             `cannot pass on path=C:\x41: remove the backslash`,
		"a\nb":                    `it contains the control character '\n': remove it`,
		"a\x7f":                   `control character`,
		"\xff":                    "not valid UTF-8, which UEFI requires",
		strings.Repeat("x", 2029): "it is 1 bytes too long: Linux accepts 2047, and the boot loader needs 19 of them",
	} {
		_, err := New(Hybrid, Contents{Kernel: text("k"), Initrd: []sparse.Content{text("i")}, Cmdline: cmdline}, testLoaders(), 0, time.Unix(0, 0))
		if err == nil || !strings.HasPrefix(err.Error(), "kernel command line: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%.30q: error %v, want %q", cmdline, err, want)
		}
	}
	if err := checkCmdline(strings.Repeat("x", 2028), grubPrefix); err != nil {
		t.Errorf("the longest: %v", err)
	}
}

// The kernel finds the same parameters in the command line that GRUB passes on, and
// no word ends the single quotes of the script.
func FuzzCmdline(f *testing.F) {
	f.Add(nasty)
	f.Add(`a="b c" "d e" f="" -- x`)
	f.Fuzz(func(t *testing.T, line string) {
		if checkCmdline(line, grubPrefix) != nil {
			return
		}
		words, err := grubWords(line)
		if err != nil {
			return
		}
		for _, word := range words {
			if strings.ContainsAny(word, "'\n") {
				t.Errorf("%q would end the quotes", word)
			}
		}
		want, got := cmdline.Parse(line), cmdline.Parse(grubResult(words))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q has other arguments under BIOS: -want +got\n%s", line, diff)
		}
	})
}
