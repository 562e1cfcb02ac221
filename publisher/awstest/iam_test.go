package awstest_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/slipway-build/slipway/publisher/awstest"
)

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
