package ami

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/aws/smithy-go"
)

// Class says whose fault an error is. It is also the exit code of the command.
type Class int

// Classes of errors.
const (
	Other       Class = 1   // AWS or the network failed, or anything without a class of its own
	Usage       Class = 2   // the options contradict each other
	Input       Class = 3   // the disk is not one that could boot
	Credentials Class = 4   // no credentials, or expired or wrong ones
	Permission  Class = 5   // the credentials may not do this
	NameTaken   Class = 6   // there is another AMI with this name
	Quota       Class = 7   // a limit of the account
	Region      Class = 8   // no such region, or one the account has not enabled
	Interrupted Class = 130 // by the user
)

// Error is an error with its class.
type Error struct {
	Class Class
	Err   error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

func fail(class Class, format string, args ...any) error {
	return &Error{class, fmt.Errorf(format, args...)}
}

// ClassOf returns the class of an error: its own, or one by AWS's error code.
func ClassOf(err error) Class {
	var classed *Error
	if errors.As(err, &classed) {
		return classed.Class
	}
	if errors.Is(err, context.Canceled) {
		return Interrupted
	}
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		return Region
	}
	code := errorCode(err)
	switch code {
	case "UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "Client.UnauthorizedOperation":
		return Permission
	case "AuthFailure", "InvalidClientTokenId", "UnrecognizedClientException", "ExpiredToken", "ExpiredTokenException",
		"RequestExpired", "SignatureDoesNotMatch", "InvalidSignatureException", "InvalidAccessKeyId", "MissingAuthenticationToken":
		return Credentials
	case "InvalidAMIName.Duplicate":
		return NameTaken
	case "ServiceQuotaExceededException", "ConcurrentLimitExceededException", "SnapshotLimitExceeded", "PendingSnapshotLimitExceeded",
		"ConcurrentSnapshotLimitExceeded", "ResourceCountExceeded", "ImageQuotaExceeded", "ResourceLimitExceeded", "LimitExceeded",
		"MaxAMICountExceeded", "AMIQuotaExceeded", "ParameterLimitExceeded":
		return Quota
	case "OptInRequired", "IllegalLocationConstraintException", "PermanentRedirect":
		return Region
	}
	return Other
}

func errorCode(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// Advice returns what can be done about an error, or "".
func Advice(err error) string {
	switch ClassOf(err) {
	case Credentials:
		return "check with: aws sts get-caller-identity; if that works, the account has not enabled the region"
	case Permission:
		return "docs/how-to/publish-to-aws.md has the policy that each method needs"
	case Quota:
		return "ask for more in the console under Service Quotas, or remove leftovers with: slipway-publish aws gc"
	case Region:
		return "check --region, and whether the account has it enabled"
	}
	return ""
}

// describe makes one line of an error of the SDK: what was being done, AWS's
// code and AWS's words.
func describe(doing string, err error) error {
	var api smithy.APIError
	var classed *Error
	var unreachable *url.Error
	switch class := ClassOf(err); {
	case errors.As(err, &classed):
		return err
	case errors.As(err, &api):
		return &Error{class, fmt.Errorf("%s: AWS refused: %s (%s)", doing, strings.TrimSpace(api.ErrorMessage()), api.ErrorCode())}
	case errors.As(err, &unreachable):
		return &Error{class, fmt.Errorf("%s: %w", doing, unreachable)}
	default:
		return &Error{class, fmt.Errorf("%s: %w", doing, err)}
	}
}
