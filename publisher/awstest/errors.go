package awstest

import (
	"errors"
	"fmt"
	"net/http"
)

// apiError is an error that AWS answers with. A mistake is one that no correct client meets.
type apiError struct {
	status        int
	code, message string
	reason        string // only of EBS direct
	header        map[string]string
	violation     bool
}

func (e *apiError) Error() string { return e.code + ": " + e.message }

// refuse is an error that a correct client can meet.
func newError(code, format string, args ...any) *apiError {
	return &apiError{status: http.StatusBadRequest, code: code, message: fmt.Sprintf(format, args...)}
}

// mistake is an error that is the client's fault.
func violation(code, format string, args ...any) *apiError {
	e := newError(code, format, args...)
	e.violation = true
	return e
}

func (e *apiError) withStatus(status int) *apiError {
	e.status = status
	return e
}

// because sets EBS direct's reason.
func (e *apiError) withReason(reason string) *apiError {
	e.reason = reason
	return e
}

// errGone says that the client went away while it sent its request.
var errGone = errors.New("the client is gone")
