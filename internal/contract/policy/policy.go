// Package policy defines the annotations of a container that tell the init what
// to do when the container ends, fails or hangs. The build side checks them and
// the init follows them.
package policy

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/slipway-build/slipway/internal/contract"
)

// Prefix starts the names of these annotations. Other annotations are ignored.
const Prefix = "build.slipway."

// Policy is how the init treats one container. The zero value is the behavior
// of LinuxKit.
type Policy struct {
	Restart Restart       // when a service is restarted
	After   []string      // services that must start before this one
	Failure Failure       // what to do when an onboot container fails
	Hotplug Hotplug       // what makes an onboot container run again
	Timeout time.Duration // to run, or for a service to stop; 0: none, or [StopTimeout] for a service
	Seccomp bool          // whether to use the default seccomp profile
	Sandbox bool          // whether the build side restricts the container as Docker does
	Health  *Health       // how to check a service; nil: not at all
	Batch   bool          // whether the machine powers off when the container has ended
	Boot    *Boot         // of a service that is part of a healthy machine; nil: of another one
}

// StopTimeout is how long a service has to stop by default.
const StopTimeout = 10 * time.Second

// Restart says when a service that has ended is restarted.
type Restart string

// The values of build.slipway.restart.
const (
	Never     Restart = "no"
	OnFailure Restart = "on-failure"
	Always    Restart = "always"
)

// Again reports whether a service that has ended, or could not be started, is
// restarted.
func (r Restart) Again(failed bool) bool { return r == Always || r == OnFailure && failed }

// Failure says what to do when an onboot container fails.
type Failure string

// The values of build.slipway.failure.
const (
	Continue Failure = "continue"
	Halt     Failure = "halt"
	Reboot   Failure = "reboot"
)

// Hotplug says for which new devices an onboot container runs again.
type Hotplug string

// Disk is the value of build.slipway.hotplug.
const Disk Hotplug = "disk"

// Key is an annotation.
type Key struct {
	Name     string
	Sections []string // in which it has an effect
	Needs    string   // the annotation without which it has no effect; empty: none
	Values   string   // that are valid
	Default  string
	Doc      string
	Example  string

	set func(p *Policy, value string) error
}

// Keys returns all annotations, sorted by name. The caller must not change them.
var Keys = sync.OnceValue(func() []Key {
	return []Key{
		{
			Name: Prefix + "after", Sections: []string{contract.Services}, Values: "comma-separated names of services", Default: "none", Example: "database",
			Doc: "The service starts after these services and stops before them. If one of them cannot be started, this one is not started either.",
			set: func(p *Policy, value string) error {
				for name := range strings.SplitSeq(value, ",") {
					name = strings.TrimSpace(name)
					if name == "" {
						return errors.New("must be a comma-separated list of names of services")
					}
					p.After = append(p.After, name)
				}
				return nil
			},
		},
		{
			Name: Prefix + "batch", Sections: []string{contract.Onboot, contract.Services}, Values: "true, false", Default: "false", Example: "true",
			Doc: "Whether the container is a batch job: when it has ended and does not restart, the machine powers off. slipway run exits with the exit status of the container.",
			set: func(p *Policy, value string) error {
				var choice string
				err := choose(&choice, value, "true", "false")
				p.Batch = choice == "true"
				return err
			},
		},
		{
			Name: Prefix + "boot-health", Sections: []string{contract.Services}, Values: "a duration, for example 5m", Default: "none", Example: "5m",
			Doc: "The machine is healthy only if this service is. If the service is not within this time after the services begin to start, the machine reboots.",
			set: func(p *Policy, value string) error { return duration(&p.boot().Timeout, value) },
		},
		{
			Name: Prefix + "boot-reboots", Sections: []string{contract.Services}, Needs: Prefix + "boot-health", Values: "0 to 1000", Default: strconv.Itoa(BootReboots), Example: "1",
			Doc: "How many times in a row the machine reboots because the service is not healthy; 0: never. It needs build.slipway.boot-health.",
			set: func(p *Policy, value string) error { return count(&p.boot().Reboots, value, 0) },
		},
		{
			Name: Prefix + "failure", Sections: []string{contract.Onboot}, Values: "continue, halt, reboot", Default: "continue", Example: "halt",
			Doc: "What the init does if the container cannot be started, fails, or exceeds its timeout: it continues to boot, halts or reboots.",
			set: func(p *Policy, value string) error { return choose(&p.Failure, value, Continue, Halt, Reboot) },
		},
		{
			Name: Prefix + "health", Sections: []string{contract.Services}, Values: "exec PROGRAM ARGUMENT…, http://HOST:PORT/PATH or tcp://HOST:PORT", Default: "none", Example: "http://localhost:8080/healthz",
			Doc: "How the init checks whether the service works: a program in the container that exits with status 0, a URL whose status is 200 to 399, or a port that accepts connections. HOST is localhost or an IP address, in the network of the service. The arguments of exec may also be a JSON array. A service that is unhealthy restarts as build.slipway.restart says.",
			set: (*Policy).setCheck,
		},
		{
			Name: Prefix + "health-failures", Sections: []string{contract.Services}, Needs: Prefix + "health", Values: "1 to 1000", Default: strconv.Itoa(HealthFailures), Example: "5",
			Doc: "How many checks in a row must fail until the service is unhealthy.",
			set: func(p *Policy, value string) error { return count(&p.health().Failures, value, 1) },
		},
		{
			Name: Prefix + "health-interval", Sections: []string{contract.Services}, Needs: Prefix + "health", Values: "a duration, for example 30s", Default: HealthInterval.String(), Example: "10s",
			Doc: "The time between two checks. Until the first one succeeds, it is at most 2 seconds.",
			set: func(p *Policy, value string) error { return duration(&p.health().Interval, value) },
		},
		{
			Name: Prefix + "health-start-period", Sections: []string{contract.Services}, Needs: Prefix + "health", Values: "a duration, for example 1m", Default: HealthStartPeriod.String(), Example: "2m",
			Doc: "How long after a start of the service failures do not count, unless a check has succeeded before.",
			set: func(p *Policy, value string) error { return duration(&p.health().StartPeriod, value) },
		},
		{
			Name: Prefix + "health-timeout", Sections: []string{contract.Services}, Needs: Prefix + "health", Values: "a duration, for example 10s", Default: HealthTimeout.String(), Example: "5s",
			Doc: "How long a check may take; then it has failed.",
			set: func(p *Policy, value string) error { return duration(&p.health().Timeout, value) },
		},
		{
			Name: Prefix + "hotplug", Sections: []string{contract.Onboot}, Values: "disk", Default: "none", Example: "disk",
			Doc: "The container also runs again after the boot, each time a disk is attached to the machine. If it fails then, the init prints why and does nothing else.",
			set: func(p *Policy, value string) error {
				if Hotplug(value) != Disk {
					return errors.New("must be disk")
				}
				p.Hotplug = Disk
				return nil
			},
		},
		{
			Name: Prefix + "restart", Sections: []string{contract.Services}, Values: "no, on-failure, always", Default: "no", Example: "always",
			Doc: "Whether the init restarts the service when it ends. The delay grows from 1 second to 1 minute; after the service has run for a minute, it is 1 second again.",
			set: func(p *Policy, value string) error { return choose(&p.Restart, value, Never, OnFailure, Always) },
		},
		{
			Name: Prefix + "sandbox", Sections: []string{contract.Onboot, contract.Onshutdown, contract.Services}, Values: "default, none", Default: "none", Example: "default",
			Doc: "The value default applies the restrictions of Docker's containers: noNewPrivileges, masked and read-only paths, Docker's default capabilities and seccomp: default, each unless the machine YAML or the label sets it.",
			set: func(p *Policy, value string) error {
				var err error
				p.Sandbox, err = isDefault(value)
				p.Seccomp = p.Sandbox // unless the next annotation says otherwise
				return err
			},
		},
		{
			Name: Prefix + "seccomp", Sections: []string{contract.Onboot, contract.Onshutdown, contract.Services}, Values: "default, none", Default: "none", Example: "default",
			Doc: "The value default applies the default seccomp profile of Docker, which forbids system calls that containers do not need. Calls that belong to a capability of the container stay allowed.",
			set: func(p *Policy, value string) error {
				var err error
				p.Seccomp, err = isDefault(value)
				return err
			},
		},
		{
			Name: Prefix + "timeout", Sections: []string{contract.Onboot, contract.Onshutdown, contract.Services}, Values: "a duration, for example 30s or 5m", Default: "none; for a service " + StopTimeout.String(), Example: "30s",
			Doc: "In onboot and onshutdown, how long the container may run; then the init stops it, and it has failed. In services, how long the service may take to stop; then the init kills it.",
			set: func(p *Policy, value string) error { return duration(&p.Timeout, value) },
		},
	}
})

func isDefault(value string) (bool, error) {
	var choice string
	err := choose(&choice, value, "default", "none")
	return choice == "default", err
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

// The errors of Set for an unknown name, and for one without effect in the
// section.
var (
	ErrUnknown = errors.New("is unknown")
	ErrSection = errors.New("has no effect here")
)

// Set applies one annotation of a container in a section. Names without
// [Prefix] are ignored. Errors are predicates: "must be …".
func (p *Policy) Set(section, name, value string) error {
	if !strings.HasPrefix(name, Prefix) {
		return nil
	}
	keys := Keys()
	i, ok := slices.BinarySearchFunc(keys, name, func(k Key, name string) int { return cmp.Compare(k.Name, name) })
	if !ok {
		return ErrUnknown
	}
	if !slices.Contains(keys[i].Sections, section) {
		return fmt.Errorf("%w: it is for %s", ErrSection, strings.Join(keys[i].Sections, " and "))
	}
	return keys[i].set(p, value)
}

// Parse applies all annotations of a container. An invalid one keeps its
// default, so that the policy is usable despite the error. Annotations without
// effect in the section are ignored, because a package may be made for several
// sections.
func Parse(section string, annotations map[string]string) (Policy, error) {
	var p Policy
	var errs []error
	for _, k := range Keys() { // for a stable order of errors
		if value, ok := annotations[k.Name]; ok {
			if err := p.Set(section, k.Name, value); err != nil && !errors.Is(err, ErrSection) {
				errs = append(errs, fmt.Errorf("annotation %s %w", k.Name, err))
			}
		}
	}
	for _, k := range Useless(section, annotations) {
		errs = append(errs, fmt.Errorf("annotation %s has no effect without %s", k.Name, k.Needs))
	}
	if h := p.Health; h != nil && h.Command == nil && h.URL == "" && h.Address == "" {
		p.Health = nil
	}
	if p.Boot != nil && p.Boot.Timeout == 0 {
		p.Boot = nil
	}
	return p, errors.Join(errs...)
}

// Useless returns the annotations of a container that have no effect because
// another one is missing.
func Useless(section string, annotations map[string]string) (keys []Key) {
	for _, k := range Keys() {
		_, set := annotations[k.Name]
		_, complete := annotations[k.Needs]
		if set && !complete && k.Needs != "" && slices.Contains(k.Sections, section) {
			keys = append(keys, k)
		}
	}
	return keys
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
