package awstest

import (
	"errors"
	"fmt"
	"net/http"
)

// An apiError is an error in the form in which AWS returns it.
type apiError struct {
	status        int
	code, message string
	reason        string // of EBS direct only
	header        map[string]string
	violation     bool // no correct client causes it
}

func (e *apiError) Error() string { return e.code + ": " + e.message }

// newError returns an error with status 400 that a correct client may cause.
func newError(code, format string, args ...any) *apiError {
	return &apiError{status: http.StatusBadRequest, code: code, message: fmt.Sprintf(format, args...)}
}

// violation returns an error with status 400 that no correct client causes. It
// is recorded as a [Violation].
func violation(code, format string, args ...any) *apiError {
	e := newError(code, format, args...)
	e.violation = true
	return e
}

func (e *apiError) withStatus(status int) *apiError {
	e.status = status
	return e
}

// withReason sets the reason that EBS direct returns.
func (e *apiError) withReason(reason string) *apiError {
	e.reason = reason
	return e
}

// errGone means that the client disconnected while it sent its request.
var errGone = errors.New("the client disconnected")
