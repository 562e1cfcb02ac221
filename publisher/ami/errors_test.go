package ami

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
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

// TestDescribe checks the messages for failures that are not AWS's.
func TestDescribe(t *testing.T) {
	for want, err := range map[string]error{
		"answered with a web page and status 403":                          fmt.Errorf("request send failed, %w", htmlError{"ec2.us-east-1.amazonaws.com", 403}),
		"there is no host ec2.mars-1.amazonaws.com: the region does not":   &net.DNSError{Name: "ec2.mars-1.amazonaws.com", IsNotFound: true},
		"the clock of this machine is wrong: it shows ":                    &smithy.GenericAPIError{Code: "InvalidSignatureException", Message: "Signature expired: 20200101T000000Z is now earlier than 20200101T010000Z"},
		"AWS refused: the signature does not match (SignatureDoesNotMatch": &smithy.GenericAPIError{Code: "SignatureDoesNotMatch", Message: "the signature does not match"},
	} {
		if got := describe("do it", err); !strings.Contains(got.Error(), want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestProxy answers every request with a web page. A publish must fail at once.
func TestProxy(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte("<html>blocked</html>"))
	}))
	defer server.Close()
	cfg := aws.Config{BaseEndpoint: &server.URL, Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("key", "secret", "")}
	start := time.Now()
	_, err := GC(t.Context(), cfg, GCOptions{Bucket: "disks"})
	if err == nil || strings.Count(err.Error(), "answered with a web page and status 403") != 4 {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("failed only after %v", took)
	}
}
