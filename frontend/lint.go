package frontend

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"

	"github.com/slipway-build/slipway/machine"
)

// lint selects the warnings to show. It has the options of BuildKit's Dockerfile
// checks: the build argument BUILDKIT_DOCKERFILE_CHECK, or a line
// "# check=skip=RULE,RULE;error=true" among the first of the YAML.
type lint struct {
	config linter.Config
}

func newLint(arg *linter.Config, data []byte) (lint, error) {
	if arg != nil {
		return lint{*arg}, nil
	}
	_, text, _, ok := parser.ParseDirective("check", data)
	if !ok {
		return lint{}, nil
	}
	config, err := linter.ParseLintOptions(text)
	if err != nil {
		return lint{}, fmt.Errorf("read the check directive: %w", err)
	}
	return lint{*config}, nil
}

// filter returns the warnings whose rules are not skipped.
func (l lint) filter(warnings machine.Diagnostics) machine.Diagnostics {
	return slices.DeleteFunc(slices.Clone(warnings), func(d machine.Diagnostic) bool { return l.skips(d.Rule) })
}

// skips reports whether the warnings of a rule are skipped.
func (l lint) skips(rule string) bool {
	return l.config.SkipAll || slices.Contains(l.config.SkipRules, rule)
}

// maxShown is how many warnings are shown. BuildKit transmits the YAML with each
// of them.
const maxShown = 100

// shown returns the first warnings. If there are more, the last one counts them.
func shown(warnings machine.Diagnostics) machine.Diagnostics {
	rest := len(warnings) - maxShown
	if rest <= 0 {
		return warnings
	}
	warnings = slices.Clone(warnings[:maxShown])
	warnings[maxShown-1].Message += fmt.Sprintf(" (and %d more warnings)", rest)
	return warnings
}

// report shows warnings at the end of the build. It returns them as an error if
// the user asked for that.
func (l lint) report(ctx context.Context, src sources, warnings machine.Diagnostics) error {
	warnings = shown(l.filter(warnings))
	for _, d := range warnings {
		description, url := describeRule(d.Rule)
		src[d.Range.Source].Warn(ctx, linter.LintFormatShort(d.Rule, d.Message, d.Range.Start), client.WarnOpts{
			Detail: [][]byte{[]byte(description)},
			URL:    url,
			Range:  []*pb.Range{pbRange(d.Range)},
		})
	}
	if l.config.ReturnAsError && len(warnings) > 0 {
		for i := range warnings {
			warnings[i].Message = warnings[i].Rule + ": " + warnings[i].Message
		}
		return warnings
	}
	return nil
}

// rulePage documents the rules.
const rulePage = "https://github.com/slipway-build/slipway/blob/main/docs/reference/lint.md#"

// describeRule returns the description of a rule and the URL of its
// documentation.
func describeRule(rule string) (description, url string) {
	rules := machine.Rules()
	i := slices.IndexFunc(rules, func(r machine.Rule) bool { return r.Name == rule })
	if i < 0 {
		return "", ""
	}
	return rules[i].Description, rulePage + strings.ToLower(rule)
}
