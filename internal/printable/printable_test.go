package printable

import "testing"

func TestLine(t *testing.T) {
	for in, want := range map[string]string{
		"plain ünï \\ \"quoted\"": "plain ünï \\ \"quoted\"",
		"\x1b[31mred\x07":         `\x1b[31mred\a`,
		"a\nb\tc\rd":              `a\nb\tc\rd`,
		"\u202egpj\xff":           `\u202egpj\xff`,
	} {
		if got := Line(in); got != want {
			t.Errorf("Line(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestLines(t *testing.T) {
	if got, want := Lines("a\x1b\nb\r\n"), "a\\x1b\nb\\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
