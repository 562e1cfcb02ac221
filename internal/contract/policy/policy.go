// Package policy reads what the annotations of a container tell a machine's init: what to do when the container ends, fails or hangs. The
// machine YAML is checked by it and the init follows it.
package policy

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/slipway-build/slipway/internal/contract"
)

// Prefix is what the names of all these annotations begin with. Others are none of ours.
const Prefix = "build.slipway."

// Policy is how the init treats one container. The zero value is what LinuxKit does.
type Policy struct {
	Restart Restart       // of a service that has ended
	After   []string      // services that must have started before this one does
	Failure Failure       // of an onboot container
	Timeout time.Duration // to run, or for a service to stop when asked; 0: as long as it takes, for a service [StopTimeout]
	Seccomp bool          // whether the default filter for system calls holds; config.json has it
}

// StopTimeout is how long a service that says nothing else has to stop.
const StopTimeout = 10 * time.Second

// Restart says when a service that has ended is started again.
type Restart string

// The values of build.slipway.restart.
const (
	Never     Restart = "no"
	OnFailure Restart = "on-failure"
	Always    Restart = "always"
)

// Again tells whether a service that ended so is started again. One that could not be started has failed.
func (r Restart) Again(failed bool) bool { return r == Always || r == OnFailure && failed }

// Failure says what follows when an onboot container fails.
type Failure string

// The values of build.slipway.failure.
const (
	Continue Failure = "continue"
	Halt     Failure = "halt"
	Reboot   Failure = "reboot"
)

// Key is an annotation.
type Key struct {
	Name     string
	Sections []string // of the containers for which it means something
	Values   string   // what may stand there
	Default  string
	Doc      string
	Example  string

	set func(p *Policy, value string) error
}

// Keys are all annotations, sorted by name.
var Keys = []Key{
	{
		Name: Prefix + "after", Sections: []string{contract.Services}, Values: "names of services, with commas", Default: "none", Example: "database",
		Doc: "The service starts when these have started, and stops before they do. If one of them cannot be started, this one is not either.",
		set: func(p *Policy, value string) error {
			for name := range strings.SplitSeq(value, ",") {
				name = strings.TrimSpace(name)
				if name == "" {
					return errors.New("must be names of services, with commas between them")
				}
				p.After = append(p.After, name)
			}
			return nil
		},
	},
	{
		Name: Prefix + "failure", Sections: []string{contract.Onboot}, Values: "continue, halt, reboot", Default: "continue", Example: "halt",
		Doc: "What follows if the container cannot be started, ends with another status than 0, or exceeds its timeout: the start goes on, or the machine stops and halts or starts anew.",
		set: func(p *Policy, value string) error { return choose(&p.Failure, value, Continue, Halt, Reboot) },
	},
	{
		Name: Prefix + "restart", Sections: []string{contract.Services}, Values: "no, on-failure, always", Default: "no", Example: "always",
		Doc: "When the service is started again after its end. The pauses before that grow from 1 second to 1 minute; a minute of running makes them short again.",
		set: func(p *Policy, value string) error { return choose(&p.Restart, value, Never, OnFailure, Always) },
	},
	{
		Name: Prefix + "seccomp", Sections: []string{contract.Onboot, contract.Onshutdown, contract.Services}, Values: "default, none", Default: "none", Example: "default",
		Doc: "Default forbids the system calls that containers do not need, as Docker does; those that a capability of the container is for stay allowed.",
		set: func(p *Policy, value string) error {
			var choice string
			err := choose(&choice, value, "default", "none")
			p.Seccomp = choice == "default"
			return err
		},
	},
	{
		Name: Prefix + "timeout", Sections: []string{contract.Onboot, contract.Onshutdown, contract.Services}, Values: "a time such as 30s or 5m", Default: "none; for a service " + StopTimeout.String(), Example: "30s",
		Doc: "How long the container may take to come to its end. One of onboot or onshutdown is stopped then and has failed; a service is killed if it is still there so long after it was asked to stop.",
		set: func(p *Policy, value string) error {
			d, err := time.ParseDuration(value)
			if err != nil || d <= 0 {
				return errors.New("must be a time such as 30s or 5m")
			}
			p.Timeout = d
			return nil
		},
	},
}

func choose[T ~string](to *T, value string, choices ...T) error {
	if !slices.Contains(choices, T(value)) {
		words := make([]string, len(choices))
		for i, c := range choices {
			words[i] = string(c)
		}
		return fmt.Errorf("must be %s or %s", strings.Join(words[:len(words)-1], ", "), words[len(words)-1])
	}
	*to = T(value)
	return nil
}

// The errors of Set for a name of ours that means nothing, or nothing in this section.
var (
	ErrUnknown = errors.New("is unknown")
	ErrSection = errors.New("has no effect here")
)

// Set follows one annotation of a container in a section. Names without [Prefix] mean nothing here and are no error. Errors are predicates:
// "must be …".
func (p *Policy) Set(section, name, value string) error {
	if !strings.HasPrefix(name, Prefix) {
		return nil
	}
	i, ok := slices.BinarySearchFunc(Keys, name, func(k Key, name string) int { return cmp.Compare(k.Name, name) })
	if !ok {
		return ErrUnknown
	}
	if !slices.Contains(Keys[i].Sections, section) {
		return fmt.Errorf("%w: it is for %s", ErrSection, strings.Join(Keys[i].Sections, " and "))
	}
	return Keys[i].set(p, value)
}

// Parse follows all annotations of a container. What is wrong keeps its default, so that the policy can be used beside the error. A package
// that is made for several sections may have annotations that mean nothing in one of them.
func Parse(section string, annotations map[string]string) (Policy, error) {
	var p Policy
	var errs []error
	for _, k := range Keys { // in one order whatever the map
		if value, ok := annotations[k.Name]; ok {
			if err := p.Set(section, k.Name, value); err != nil && !errors.Is(err, ErrSection) {
				errs = append(errs, fmt.Errorf("annotation %s %w", k.Name, err))
			}
		}
	}
	return p, errors.Join(errs...)
}

// Cycle returns a cycle of services that wait for each other: each waits for
// the next one, and the last is the first again. It returns nil if there is
// none.
func Cycle(after map[string][]string) []string {
	for _, cycle := range Cycles(after, 1) {
		return cycle
	}
	return nil
}

// Cycles returns up to limit cycles in the form of [Cycle], in an order that
// depends on the names alone. The time is linear in the number of names unless
// there are cycles.
func Cycles(after map[string][]string, limit int) (cycles [][]string) {
	const visiting, done = 1, 2
	states := map[string]int{}
	var path []string
	var visit func(name string)
	visit = func(name string) {
		switch {
		case states[name] == done || len(cycles) == limit:
			return
		case states[name] == visiting:
			cycles = append(cycles, append(slices.Clone(path[slices.Index(path, name):]), name))
			return
		}
		states[name] = visiting
		path = append(path, name)
		for _, next := range after[name] {
			visit(next)
		}
		path = path[:len(path)-1]
		states[name] = done
	}
	for _, name := range slices.Sorted(maps.Keys(after)) {
		visit(name)
	}
	return cycles
}
