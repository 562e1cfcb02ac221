package machine

import (
	"fmt"
	"strings"

	"github.com/agext/levenshtein"
)

// Suggest gives "; did you mean …?" for the candidate nearest to a word, or nothing if none is near.
func Suggest(word string, candidates []string) string {
	return didYouMean(nearest(word, candidates))
}

func didYouMean(word string) string {
	if word == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", word)
}

// nearest gives the candidate nearest to a word, or nothing if none is near. Up to a third of the letters, but two in
// short words, may be wrong; one word may also be the beginning of the other.
func nearest(word string, candidates []string) string {
	word = strings.ToLower(word)
	best, least := "", min(max(3, len(word)/3+1), len(word))
	for _, c := range candidates {
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
