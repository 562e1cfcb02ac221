package cmdline

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	for _, test := range []struct {
		line string
		want []Arg
	}{
		{"", nil},
		{"console=ttyS0 quiet\n", []Arg{{"console", "ttyS0", true}, {"quiet", "", false}}},
		{`dyndbg="file a.c +p"  ro`, []Arg{{"dyndbg", "file a.c +p", true}, {"ro", "", false}}},
		{`"ip=10.0.0.1 x" empty=`, []Arg{{"ip", "10.0.0.1 x", true}, {"empty", "", true}}},
		{"root=UUID=7a", []Arg{{"root", "UUID=7a", true}}},
	} {
		if diff := cmp.Diff(test.want, Parse(test.line)); diff != "" {
			t.Errorf("Parse(%q): -want +got\n%s", test.line, diff)
		}
	}
}

func TestLookup(t *testing.T) {
	args := Parse("console=tty0 console=ttyS0 quiet")
	if value, ok := Lookup(args, "console"); value != "ttyS0" || !ok {
		t.Errorf("Lookup console = %q, %v; want the last, ttyS0", value, ok)
	}
	if _, ok := Lookup(args, "quiet"); !ok {
		t.Error("Lookup quiet: not found")
	}
	if _, ok := Lookup(args, "panic"); ok {
		t.Error("Lookup panic: found")
	}
}
