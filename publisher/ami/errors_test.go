package ami

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	ebstypes "github.com/aws/aws-sdk-go-v2/service/ebs/types"
	"github.com/aws/smithy-go"
)

func TestClasses(t *testing.T) {
	api := func(code string) error { return &smithy.GenericAPIError{Code: code, Message: "message"} }
	for _, test := range []struct {
		err       error
		class     Class
		transient bool
	}{
		{api("UnauthorizedOperation"), ClassPermission, false},
		{&ebstypes.AccessDeniedException{}, ClassPermission, false},
		{api("ExpiredToken"), ClassCredentials, false},
		{api("AuthFailure"), ClassCredentials, false},
		{api("InvalidAMIName.Duplicate"), ClassNameTaken, false},
		{&ebstypes.ServiceQuotaExceededException{}, ClassQuota, false},
		{&ebstypes.RequestThrottledException{}, ClassOther, true},
		{&ebstypes.InternalServerException{}, ClassOther, true},
		{&ebstypes.ValidationException{Reason: "CONFLICTING_BLOCK_UPDATE"}, ClassOther, true},
		{&ebstypes.ValidationException{Reason: "INVALID_PARAMETER_VALUE"}, ClassOther, false},
		{api("RequestLimitExceeded"), ClassOther, true},
		{&net.DNSError{IsNotFound: true, Name: "ec2.us-esat-1.amazonaws.com"}, ClassRegionUnavailable, false},
		{fmt.Errorf("request: %w", context.DeadlineExceeded), ClassOther, true},
		{context.Canceled, ClassInterrupted, false},
		{errors.New("other"), ClassOther, false},
	} {
		if got := ClassOf(test.err); got != test.class {
			t.Errorf("%v: class %d, want %d", test.err, got, test.class)
		}
		if got := isTransient(test.err); got != test.transient {
			t.Errorf("%v: transient %v, want %v", test.err, got, test.transient)
		}
		if line := describe("do it", test.err).Error(); strings.Contains(line, "\n") {
			t.Errorf("more than one line: %q", line)
		}
	}
}
