package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// well reports whether the service works, as far as its policy checks that.
func (s *service) well() bool {
	if s.policy.Health != nil {
		return s.health == healthy
	}
	return s.state == running || s.state == ended
}

// condition returns the state of the service and what its check has found, for
// messages.
func (s *service) condition() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := string(s.state)
	if s.health != unchecked && s.state == running {
		text = string(s.health)
	}
	switch {
	case s.problem != "":
		text += ": " + s.problem
	case s.end != "" && s.state != running:
		text += ": " + s.end
	}
	return text
}

// watchBoot waits until the services that are part of a healthy machine are
// healthy. If one of them is not in time, it reboots the machine, unless that
// has been tried often enough.
func (m *machine) watchBoot(ctx context.Context, place func() (*counter, error)) {
	required := m.required()
	if len(required) == 0 {
		return
	}
	var all sync.WaitGroup
	var reboots sync.Mutex // held while one of them decides
	for _, s := range required {
		all.Go(func() {
			deadline, cancel := context.WithTimeout(ctx, s.policy.Boot.Timeout)
			defer cancel()
			if s.await(s.well, deadline.Done()) || ctx.Err() != nil {
				return
			}
			reboots.Lock()
			defer reboots.Unlock()
			if ctx.Err() != nil {
				return
			}
			m.out.say("machine is not healthy: service %s, which must be within %v, is %s", s.name, s.policy.Boot.Timeout, s.condition())
			if err := m.rebootFor(s, place); err != nil {
				m.out.say("not rebooting: %v", err)
				return
			}
			<-ctx.Done()
		})
	}
	all.Wait()
	for _, s := range required {
		s.await(s.well, ctx.Done())
	}
	if ctx.Err() != nil {
		return
	}
	m.out.say("machine is healthy")
	if c, err := place(); err == nil {
		m.report(c.clear())
	}
}

// required returns the services that are part of a healthy machine.
func (m *machine) required() (required []*service) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.services {
		if s.policy.Boot != nil {
			required = append(required, s)
		}
	}
	return required
}

// rebootFor reboots the machine because a service is not healthy, and counts
// that. It is an error if there have been enough such reboots in a row, or if
// they cannot be counted.
func (m *machine) rebootFor(s *service, place func() (*counter, error)) error {
	most := s.policy.Boot.Reboots
	if most == 0 {
		return errors.New("the annotation build.slipway.boot-reboots is 0")
	}
	c, err := place()
	if err != nil {
		return err
	}
	n, err := c.read()
	if err != nil {
		return err
	}
	if n >= most {
		return fmt.Errorf("the machine was not healthy after %d reboots", n)
	}
	if err := c.write(n + 1); err != nil {
		return err
	}
	m.out.say("reboot %d of at most %d", n+1, most)
	m.noteFailure(fmt.Sprintf("machine is not healthy: service %s is %s", s.name, s.condition()))
	requestPower(m.requests, reboot)
	return nil
}

// waitHealthy waits until the named services are healthy, or those that are part
// of a healthy machine. It is an error if one of them has ended for good. A
// timeout of 0 means none.
func (m *machine) waitHealthy(ctx context.Context, services []*service, timeout time.Duration) error {
	if len(services) == 0 {
		if services = m.required(); len(services) == 0 {
			return errors.New("no service is part of a healthy machine: name services, or add the annotation build.slipway.boot-health to some")
		}
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	for _, s := range services {
		if s.await(func() bool { return s.well() || s.state == failed || s.state == stopped }, ctx.Done()) {
			s.mu.Lock()
			ok := s.well()
			s.mu.Unlock()
			if ok {
				continue
			}
		}
		return fmt.Errorf("service %s is %s", s.name, s.condition())
	}
	return nil
}
