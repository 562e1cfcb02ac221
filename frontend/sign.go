package frontend

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/kernel/cmdline"
	"github.com/slipway-build/slipway/machine"
)

// lockedDown are the kernel arguments of signed machines: the root user cannot
// change the running kernel, and the kernel loads signed modules only (Linux,
// Documentation/admin-guide/kernel-parameters.txt).
var lockedDown = []cmdline.Arg{
	{Key: "lockdown", Value: "integrity", HasValue: true},
	{Key: "module.sig_enforce", Value: "1", HasValue: true},
}

// lockDown returns the command line of a signed machine. It adds the arguments of
// lockedDown whose keys the line does not have, before the others, because the kernel
// ignores what follows "--".
func lockDown(line string) string {
	args := cmdline.Parse(line)
	var added []string
	for _, a := range lockedDown {
		if _, ok := cmdline.Lookup(args, a.Key); !ok {
			added = append(added, a.String())
		}
	}
	if line != "" {
		added = append(added, line)
	}
	return strings.Join(added, " ")
}

// insecureConsole is the variable with which the package getty opens a shell
// without a password.
const insecureConsole = "INSECURE=true"

// signed returns the plan of a signed machine. It fails if a container opens a
// shell on the console to whoever is there.
func (r *request) signed(plan *machine.Plan) (*machine.Plan, error) {
	var diags machine.Diagnostics
	for _, e := range plan.Configs {
		if path.Base(e.Path) != contract.Config {
			continue
		}
		var spec specs.Spec
		if err := json.Unmarshal([]byte(e.Contents), &spec); err != nil {
			return nil, fmt.Errorf("%s: %w", e.Path, err)
		}
		if spec.Process == nil || !slices.Contains(spec.Process.Env, insecureConsole) {
			continue
		}
		var place machine.Range
		for _, t := range plan.Trees {
			if strings.HasPrefix(t.Prefix, path.Dir(e.Path)+"/") || t.Prefix == path.Dir(e.Path) {
				place = t.Range
			}
		}
		diags = append(diags, r.sources.errorAt(place,
			"%s in the environment opens a shell without a password on the console, which a signed machine must not have: remove it", insecureConsole))
	}
	if len(diags) > 0 {
		return nil, sorted(diags)
	}
	locked := *plan
	locked.Cmdline = lockDown(plan.Cmdline)
	return &locked, nil
}
