package suggest

import (
	"fmt"
	"regexp"
)

// placeholders are the forms in which other tools mark what they replace, and
// names of such tools.
var placeholders = []struct {
	pattern *regexp.Regexp
	tool    string
}{
	{regexp.MustCompile(`\$\{[A-Za-z_][A-Za-z0-9_]*\}`), "envsubst"},
	{regexp.MustCompile(`\{\{[^{}]*\}\}`), "a template"},
	{regexp.MustCompile(`@@?[A-Za-z][A-Za-z0-9_.-]*@@?`), "sed or configure"},
	{regexp.MustCompile(`%%?[A-Za-z][A-Za-z0-9_.-]*%%?`), "sed"},
	{regexp.MustCompile(`<[A-Za-z][A-Za-z0-9_. -]*>`), "documentation"},
}

// Placeholder returns a predicate about a text that contains a placeholder of
// another tool, for example {{ .Tag }}, which was not replaced. Otherwise it
// returns "". It is for texts that are invalid, because valid ones may look the
// same.
func Placeholder(text string) string {
	for _, p := range placeholders {
		if name := p.pattern.FindString(text); name != "" {
			return looksLike(name, p.tool)
		}
	}
	return ""
}

var constant = regexp.MustCompile(`(?:^|[/:@])([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)(?:$|[/:@])`)

// Constant is [Placeholder] for words in upper case with underscores, for
// example KERNEL_IMAGE.
func Constant(text string) string {
	if found := constant.FindStringSubmatch(text); found != nil {
		return looksLike(found[1], "sed or awk")
	}
	return ""
}

func looksLike(name, tool string) string {
	return fmt.Sprintf("contains %q, which looks like a placeholder of %s: replace it first, or define it in args", name, tool)
}
