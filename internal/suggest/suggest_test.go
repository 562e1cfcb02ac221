package suggest_test

import (
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/suggest"
)

func TestAmong(t *testing.T) {
	words := []string{"command", "capabilities", "env", "network", strings.Repeat("x", 300)}
	for word, want := range map[string]string{
		"comand":                 "command",
		"COMMAND":                "command",
		"cap":                    "capabilities", // a prefix
		"networks":               "network",
		"environment":            "env", // the other way round
		"evn":                    "env",
		"e":                      "",
		"":                       "",
		"zzzzzz":                 "",
		strings.Repeat("x", 299): "", // too long to compare
	} {
		if want != "" {
			want = ` (did you mean "` + want + `"?)`
		}
		if got := suggest.Among(word, words); got != want {
			t.Errorf("%.20q: %q, want %q", word, got, want)
		}
	}
}
