package machine

import (
	"fmt"
	"strings"

	"github.com/agext/levenshtein"
)

// suggest gives "; did you mean …?" for the candidate nearest to a word, or nothing if none is near.
func suggest(word string, candidates []string) string {
	best, least := "", len(word)/3+2 // a third of the letters, and one more, may be wrong
	for _, c := range candidates {
		if d := levenshtein.Distance(strings.ToLower(word), strings.ToLower(c), nil); d < least {
			best, least = c, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}
