package ami

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/smithy-go"
)

// A Class is the kind of an error. It is also the exit status of
// slipway-publish.
type Class int

// Classes of errors.
const (
	ClassOther             Class = 1   // AWS or the network failed, or the error has no other class
	ClassUsage             Class = 2   // an option is invalid, or options contradict each other
	ClassDisk              Class = 3   // the disk cannot be read or cannot boot
	ClassCredentials       Class = 4   // the credentials are missing, expired or invalid
	ClassPermission        Class = 5   // the credentials do not permit the action
	ClassNameTaken         Class = 6   // another AMI has the name
	ClassQuota             Class = 7   // the account has reached a quota
	ClassRegionUnavailable Class = 8   // the region does not exist or the account has not enabled it
	ClassInterrupted       Class = 130 // the context was canceled
)

// An Error is an error with its class.
type Error struct {
	Class Class
	Err   error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the underlying error.
func (e *Error) Unwrap() error { return e.Err }

func fail(class Class, format string, args ...any) error {
	return &Error{class, fmt.Errorf(format, args...)}
}

// ClassOf returns the class of an error: that of the [Error] it wraps, or
// otherwise the class of its AWS error code.
func ClassOf(err error) Class {
	var classed *Error
	if errors.As(err, &classed) {
		return classed.Class
	}
	if errors.Is(err, context.Canceled) {
		return ClassInterrupted
	}
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		return ClassRegionUnavailable
	}
	switch errorCode(err) {
	case "UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "Client.UnauthorizedOperation":
		return ClassPermission
	case "AuthFailure", "InvalidClientTokenId", "UnrecognizedClientException", "ExpiredToken", "ExpiredTokenException",
		"RequestExpired", "RequestTimeTooSkewed", "RequestInTheFuture", "SignatureDoesNotMatch", "InvalidSignatureException", "InvalidAccessKeyId", "MissingAuthenticationToken":
		return ClassCredentials
	case "InvalidAMIName.Duplicate":
		return ClassNameTaken
	case "ServiceQuotaExceededException", "ConcurrentLimitExceededException", "SnapshotLimitExceeded", "PendingSnapshotLimitExceeded",
		"ConcurrentSnapshotLimitExceeded", "ResourceCountExceeded", "ImageQuotaExceeded", "ResourceLimitExceeded", "LimitExceeded",
		"MaxAMICountExceeded", "AMIQuotaExceeded", "ParameterLimitExceeded", "InstanceLimitExceeded", "VcpuLimitExceeded":
		return ClassQuota
	case "OptInRequired", "IllegalLocationConstraintException", "PermanentRedirect":
		return ClassRegionUnavailable
	}
	return ClassOther
}

func errorCode(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// hasCode returns a test for errors with one of the codes.
func hasCode(codes ...string) func(error) bool {
	return func(err error) bool {
		return slices.Contains(codes, errorCode(err))
	}
}

// isRefusal reports whether AWS answered and the same request would fail
// again. Any other error leaves open whether the request took effect.
func isRefusal(err error) bool {
	var api smithy.APIError
	return errors.As(err, &api) && !isTransient(err)
}

// isClockSkew reports whether AWS rejected the time of a signature.
func isClockSkew(err error) bool {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return false
	}
	switch api.ErrorCode() {
	case "RequestTimeTooSkewed", "RequestInTheFuture":
		return true
	case "SignatureDoesNotMatch", "InvalidSignatureException", "AuthFailure":
		text := api.ErrorMessage()
		return strings.Contains(text, "Signature expired") || strings.Contains(text, "Signature not yet current")
	}
	return false
}

// describe turns an error of the SDK into one line: the action, AWS's message
// and AWS's error code.
func describe(action string, err error) error {
	var api smithy.APIError
	var classed *Error
	var request *url.Error
	var untrusted *tls.CertificateVerificationError
	var page htmlError
	var dns *net.DNSError
	switch class := ClassOf(err); {
	case errors.As(err, &classed):
		return err
	case errors.As(err, &page):
		return &Error{class, fmt.Errorf("%s: %w", action, page)}
	case errors.As(err, &dns) && dns.IsNotFound:
		return &Error{class, fmt.Errorf("%s: there is no host %s: the region does not exist, or DNS does not work here", action, dns.Name)}
	case isClockSkew(err) && errors.As(err, &api):
		return &Error{ClassCredentials, fmt.Errorf("%s: the clock of this machine is wrong: it shows %s, but AWS refused: %s (%s)",
			action, time.Now().UTC().Format(time.RFC3339), strings.TrimSpace(api.ErrorMessage()), api.ErrorCode())}
	case errors.As(err, &api):
		return &Error{class, fmt.Errorf("%s: AWS refused: %s (%s)", action, strings.TrimSpace(api.ErrorMessage()), api.ErrorCode())}
	case errors.As(err, &untrusted):
		return &Error{class, fmt.Errorf("%s: %w; set AWS_CA_BUNDLE to a file with the certificate of the proxy or endpoint", action, err)}
	case errors.As(err, &request):
		return &Error{class, fmt.Errorf("%s: %w", action, request)}
	default:
		return &Error{class, fmt.Errorf("%s: %w", action, err)}
	}
}
