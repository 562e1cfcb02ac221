package awstest_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/slipway-build/slipway/publisher/awstest"
)

// tamper changes requests after signing.
type tamper func(*http.Request)

func (t tamper) Do(r *http.Request) (*http.Response, error) {
	t(r)
	return http.DefaultClient.Do(r)
}

func TestSignature(t *testing.T) {
	for name, test := range map[string]struct {
		change tamper
		code   string
		want   string // in the violation; "" means none
	}{
		"good":              {func(*http.Request) {}, "", ""},
		"unsigned":          {func(r *http.Request) { r.Header.Del("Authorization") }, "", "no Authorization header"},
		"another algorithm": {func(r *http.Request) { r.Header.Set("Authorization", "Basic eA==") }, "", "does not start with AWS4-HMAC-SHA256"},
		"another query":     {func(r *http.Request) { r.URL.RawQuery = "a=b" }, "SignatureDoesNotMatch", "signature does not match"},
		"another body": {func(r *http.Request) {
			const text = "Action=GetCallerIdentity&Version=2011-06-15&X=Y"
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
		}, "SignatureDoesNotMatch", "signature does not match"},
		"header not signed": {func(r *http.Request) { r.Header.Set("X-Amz-Other", "x") }, "SignatureDoesNotMatch", "x-amz-other is not signed"},
		"old":               {func(r *http.Request) { r.Header.Set("X-Amz-Date", "20200101T000000Z") }, "SignatureDoesNotMatch", "differs from the current time"},
		"another key": {func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), awstest.AccessKeyID, "AKIAOTHER", 1))
		}, "InvalidClientTokenId", ""},
		"another service": {func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "/sts/", "/sqs/", 1))
		}, "", "does not implement the service \"sqs\""},
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t, awstest.Knobs{})
			c.conf.HTTPClient = test.change
			out, err := sts.NewFromConfig(c.conf).GetCallerIdentity(c.ctx, &sts.GetCallerIdentityInput{})
			if test.code != "" && code(err) != test.code {
				t.Errorf("%v, not %s", err, test.code)
			}
			switch {
			case name == "good" && (err != nil || *out.Account != awstest.Account):
				t.Errorf("the caller is %+v: %v", out, err)
			case name != "good" && err == nil:
				t.Error("no error")
			}
			if test.want == "" {
				c.clean()
			} else {
				c.violated(test.want)
			}
		})
	}
	c := start(t, awstest.Knobs{})
	c.conf.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: awstest.AccessKeyID, SecretAccessKey: "another"}, nil
	})
	if _, err := sts.NewFromConfig(c.conf).GetCallerIdentity(c.ctx, &sts.GetCallerIdentityInput{}); code(err) != "SignatureDoesNotMatch" {
		t.Errorf("different secret key: %v", err)
	}
}
