package cmdline

import (
	"strings"
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
		{"=x", []Arg{{"=x", "", false}}},
		{"=a=b", []Arg{{"=a", "b", true}}},
		{`a="b`, []Arg{{"a", "b", true}}},
		{`"a"`, []Arg{{"a", "", false}}},
		{`"a="b c""`, []Arg{{"a", "b", true}, {`c""`, "", false}}},
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

// Parse returns what the kernel's own parser does.
func FuzzParse(f *testing.F) {
	f.Add(`console=ttyS0 "a b" c="d e" "f=g h" i="j`)
	f.Add(`=a ="b c" x=y"z w" ""`)
	f.Fuzz(func(t *testing.T, line string) {
		if strings.Contains(line, "\x00") {
			return
		}
		var want []Arg
		for rest := skipSpaces(line); rest != ""; {
			var arg Arg
			arg, rest = nextArg(rest)
			want = append(want, arg)
		}
		if diff := cmp.Diff(want, Parse(line)); diff != "" {
			t.Errorf("Parse(%q): -want +got\n%s", line, diff)
		}
		if got := strings.Join(Split(line), " "); len(got) != len(line) {
			t.Errorf("Split(%q) loses text: %q", line, got)
		}
	})
}

// nextArg is next_arg of Linux 6.12, lib/cmdline.c, line by line.
func nextArg(args string) (arg Arg, rest string) {
	equals, inQuote, quoted := 0, false, false
	if args[0] == '"' {
		args, inQuote, quoted = args[1:], true, true
	}
	i := 0
	for ; i < len(args); i++ {
		if strings.IndexByte(spaces, args[i]) >= 0 && !inQuote {
			break
		}
		if equals == 0 && args[i] == '=' {
			equals = i
		}
		if args[i] == '"' {
			inQuote = !inQuote
		}
	}
	word := args[:i]
	if equals == 0 {
		if quoted {
			word = strings.TrimSuffix(word, `"`)
		}
		return Arg{Key: word}, skipSpaces(args[i:])
	}
	value := word[equals+1:]
	if strings.HasPrefix(value, `"`) {
		value = strings.TrimSuffix(value[1:], `"`)
	} else if quoted {
		value = strings.TrimSuffix(value, `"`)
	}
	return Arg{word[:equals], value, true}, skipSpaces(args[i:])
}

const spaces = " \t\n\v\f\r"

func skipSpaces(s string) string { return strings.TrimLeft(s, spaces) }
