package awstest_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/slipway-build/slipway/publisher/awstest"
)

// toLoopback sends all requests to the fake, whatever their host.
type toLoopback struct{ url string }

func (l toLoopback) Do(r *http.Request) (*http.Response, error) {
	there := must(url.Parse(l.url))
	r.Host = r.URL.Host
	r.URL.Host = there.Host
	return http.DefaultClient.Do(r)
}

// changeBody flips a bit in the middle of each body.
type changeBody struct{ aws.HTTPClient }

func (c changeBody) Do(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		return c.HTTPClient.Do(r)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	body[len(body)/2] ^= 1
	r.Body = io.NopCloser(bytes.NewReader(body))
	return c.HTTPClient.Do(r)
}

// tamper changes requests after they were signed.
type tamper func(*http.Request)

func (t tamper) Do(r *http.Request) (*http.Response, error) {
	t(r)
	return http.DefaultClient.Do(r)
}

func TestSignature(t *testing.T) {
	for name, test := range map[string]struct {
		change tamper
		code   string
		want   string // in the violation; "" is none
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
		"old":               {func(r *http.Request) { r.Header.Set("X-Amz-Date", "20200101T000000Z") }, "SignatureDoesNotMatch", "which is"},
		"another key": {func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), awstest.AccessKeyID, "AKIAOTHER", 1))
		}, "InvalidClientTokenId", ""},
		"another service": {func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "/sts/", "/sqs/", 1))
		}, "", "no service \"sqs\""},
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
		t.Errorf("another secret: %v", err)
	}
}

// Parameters that are not in the model, which the SDK cannot be made to send.
func TestUnknownParameter(t *testing.T) {
	c := start(t, awstest.Knobs{})
	for want, test := range map[string]struct{ service, body string }{
		"parameter Colour is not recognized": {"ec2", "Action=DescribeRegions&Version=2016-11-15&Colour=red"},
		"must contain the parameter ImageId": {"ec2", "Action=DeregisterImage&Version=2016-11-15"},
		"no ec2:RunInstances":                {"ec2", "Action=RunInstances&Version=2016-11-15"},
		"version \"2000-01-01\" is not":      {"ec2", "Action=DescribeRegions&Version=2000-01-01"},
		"parameter Version is there 2 times": {"ec2", "Action=DescribeRegions&Version=2016-11-15&Version=2016-11-15"},
		"AllRegions is invalid":              {"ec2", "Action=DescribeRegions&Version=2016-11-15&AllRegions=perhaps"},
		"parameter Other is not recognized":  {"sts", "Action=GetCallerIdentity&Version=2011-06-15&Other=1"},
		"unknown field \"Colour\"":           {"ebs", `{"VolumeSize":1,"Colour":"red"}`},
		"no target \"\", only AmazonSSM's":   {"ssm", `{}`},
	} {
		before := len(c.fake.Violations())
		response := c.send(test.service, test.body)
		if response.StatusCode < 400 || response.StatusCode >= 500 {
			t.Errorf("%s: %s", want, response.Status)
		}
		if v := c.fake.Violations()[before:]; len(v) != 1 || !strings.Contains(v[0].String(), want) {
			t.Errorf("violations are %v, not one with %q", v, want)
		}
	}
}

func TestRole(t *testing.T) {
	c := start(t, awstest.Knobs{Roles: []string{"importer"}})
	role := must(c.iam.GetRole(c.ctx, &iam.GetRoleInput{RoleName: aws.String("importer")})).Role
	if trust := must(url.QueryUnescape(*role.AssumeRolePolicyDocument)); !strings.Contains(trust, "vmie.amazonaws.com") {
		t.Errorf("the role trusts %s", trust)
	}
	if _, err := c.iam.GetRole(c.ctx, &iam.GetRoleInput{RoleName: aws.String("vmimport")}); code(err) != "NoSuchEntity" {
		t.Error(err)
	}
	c.clean()
}

func TestParameters(t *testing.T) {
	c := start(t, awstest.Knobs{})
	name := "/slipway/machine"
	in := &ssm.PutParameterInput{Name: &name, Value: aws.String("one"), Type: ssmtypes.ParameterTypeString}
	must(c.ssm.PutParameter(c.ctx, in))
	if _, err := c.ssm.PutParameter(c.ctx, in); code(err) != "ParameterAlreadyExists" {
		t.Error(err)
	}
	ami := *must(c.ec2.RegisterImage(c.ctx, imageInput("machine", c.snapshot(nil, nil)))).ImageId
	in.Value, in.DataType, in.Overwrite = &ami, aws.String("aws:ec2:image"), aws.Bool(true)
	if v := must(c.ssm.PutParameter(c.ctx, in)).Version; v != 2 {
		t.Errorf("the version is %d", v)
	}
	if got := must(c.ssm.GetParameter(c.ctx, &ssm.GetParameterInput{Name: &name})).Parameter; *got.Value != ami || *got.DataType != "aws:ec2:image" {
		t.Errorf("the parameter is %+v", got)
	}
	both := must(c.ssm.GetParameters(c.ctx, &ssm.GetParametersInput{Names: []string{name, "other"}}))
	if len(both.Parameters) != 1 || !slices.Equal(both.InvalidParameters, []string{"other"}) {
		t.Errorf("the parameters are %+v", both)
	}
	must(c.ssm.DeleteParameter(c.ctx, &ssm.DeleteParameterInput{Name: &name}))
	if _, err := c.ssm.GetParameter(c.ctx, &ssm.GetParameterInput{Name: &name}); code(err) != "ParameterNotFound" {
		t.Error(err)
	}
	c.clean()
	in.Value = aws.String("ami-00000000000000000")
	if _, err := c.ssm.PutParameter(c.ctx, in); code(err) != "ValidationException" {
		t.Error(err)
	}
	c.violated("is no image")
}
