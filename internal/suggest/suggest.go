// Package suggest adds suggestions to error messages about unknown words.
package suggest

import (
	"fmt"
	"strings"

	"github.com/agext/levenshtein"
)

// Among returns ` (did you mean "…"?)` for the candidate nearest to a word, or
// "" if none is near.
func Among(word string, candidates []string) string {
	return Word(Nearest(word, candidates))
}

// Word returns ` (did you mean "…"?)` for a word, or "" for "".
func Word(word string) string {
	if word == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", word)
}

// longest is the length of the longest word for which Nearest looks, because
// the time of a comparison grows with the square of the length.
const longest = 200

// Nearest returns the candidate nearest to a word, or "" if none is near.
// A candidate is near if up to a third of the letters differ (two letters in
// short words), or if one word is a prefix of the other.
func Nearest(word string, candidates []string) string {
	if len(word) > longest {
		return ""
	}
	word = strings.ToLower(word)
	best, least := "", min(max(3, len(word)/3+1), len(word))
	for _, c := range candidates {
		if len(c) > longest {
			continue
		}
		low := strings.ToLower(c)
		d := levenshtein.Distance(word, low, nil)
		if min(len(word), len(low)) > 2 && (strings.HasPrefix(low, word) || strings.HasPrefix(word, low)) {
			d = min(d, 2)
		}
		if d < least {
			best, least = c, d
		}
	}
	return best
}
