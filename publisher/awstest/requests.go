package awstest

import (
	"fmt"
	"slices"
	"strings"
)

// A Request describes a request that the fake received.
type Request struct {
	Service   string // as in the signature, for example "ebs"
	Region    string
	Operation string // as in the service's model, for example "PutSnapshotBlock"
	// Resource is the path, or the first ID or name among the parameters.
	Resource string
	// Attempt counts the requests with the same service, region, operation and
	// resource, from 1.
	Attempt int
	// Fault is the fault that the fake injected.
	Fault Fault
	// Status is the HTTP status of the answer; 0 means no answer.
	Status int
	// Error is the error code in the answer.
	Error string
	// Proto is the protocol of the request: HTTP/1.1 or HTTP/2.0.
	Proto string
}

func (r Request) key() string {
	return strings.Join([]string{r.Service, r.Region, r.Operation, r.Resource}, " ")
}

// String returns the request as one line.
func (r Request) String() string {
	text := fmt.Sprintf("%s:%s %s %s #%d: %d", r.Service, r.Operation, r.Region, r.Resource, r.Attempt, r.Status)
	if r.Service == "" { // not signed
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

// Requests returns the requests that ended so far, in that order.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Count returns how often an operation was called, for example
// "ec2:RegisterImage".
func (s *Server) Count(operation string) int {
	n := 0
	for _, r := range s.Requests() {
		if r.Service+":"+r.Operation == operation {
			n++
		}
	}
	return n
}

// A Violation is a request that no correct client sends.
type Violation struct {
	Request Request
	Message string
}

func (v Violation) String() string { return v.Request.String() + ": " + v.Message }

// Violations returns all violations so far.
func (s *Server) Violations() []Violation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.violations)
}
