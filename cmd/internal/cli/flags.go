package cli

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/slipway-build/slipway/internal/suggest"
)

// PairsVar defines a flag for NAME=VALUE that may be repeated. If lookup is not
// nil, it provides the value of a NAME alone; a name that it does not know is
// ignored.
func PairsVar(flags *pflag.FlagSet, pairs map[string]string, name, usage string, lookup func(string) (string, bool)) {
	flags.Func(name, usage, func(text string) error {
		key, value, ok := strings.Cut(text, "=")
		if !ok && key != "" && lookup != nil {
			if value, ok = lookup(key); !ok {
				return nil
			}
		}
		if !ok || key == "" {
			return errors.New("write it as NAME=VALUE")
		}
		pairs[key] = value
		return nil
	})
}

// explainFlag makes a usage error of an error that pflag found.
func explainFlag(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return Usagef("%w", err)
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, "--"+f.Name) })
	if typed := unknown.GetSpecifiedShortnames(); len(typed) > 1 {
		return Usagef("unknown flag: -%s%s", typed, suggest.Among("--"+typed, names))
	}
	return Usagef("%w%s", err, suggest.Among("--"+unknown.GetSpecifiedName(), names))
}
