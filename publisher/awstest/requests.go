package awstest

import (
	"fmt"
	"strings"
)

// Request is one request as the fake saw it.
type Request struct {
	Service   string // as in the signature: "ebs", "ec2", "s3" …
	Region    string
	Operation string // as in the service's model: "PutSnapshotBlock"
	// Resource is what the operation is about, if its address says so: a path, or an id or name among the parameters.
	Resource string
	// Attempt counts requests with the same service, region, operation and resource, from 1.
	Attempt int
	// Fault is how the fake let it fail, and Status the HTTP status of the answer; 0 is none.
	Fault  Fault
	Status int
	// Error is the code of the error that the answer held.
	Error string
}

func (r Request) key() string {
	return strings.Join([]string{r.Service, r.Region, r.Operation, r.Resource}, " ")
}

// String gives the request on a line.
func (r Request) String() string {
	text := fmt.Sprintf("%s:%s %s %s #%d: %d", r.Service, r.Operation, r.Region, r.Resource, r.Attempt, r.Status)
	if r.Service == "" { // it was not signed
		text = fmt.Sprintf("%s: %d", r.Operation, r.Status)
	}
	if r.Error != "" {
		text += " " + r.Error
	}
	if r.Fault != None {
		text += " (" + r.Fault.String() + ")"
	}
	return text
}

// Requests returns all requests so far, in the order of their ends. Those that are still under way are not among them.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.requests...)
}

// Count says how often an operation, such as "ec2:RegisterImage", was called.
func (s *Server) Count(operation string) int {
	n := 0
	for _, r := range s.Requests() {
		if r.Service+":"+r.Operation == operation {
			n++
		}
	}
	return n
}

// Violation is something that no correct client does.
type Violation struct {
	Request Request
	Message string
}

func (v Violation) String() string { return v.Request.String() + ": " + v.Message }

// Violations returns all violations so far.
func (s *Server) Violations() []Violation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Violation(nil), s.violations...)
}
