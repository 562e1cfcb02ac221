package awstest

import (
	"net/http"
	"slices"
)

func iamService() *service {
	return queryService(iamVersion, map[string]func(*call) (any, error){
		"GetRole": func(c *call) (any, error) {
			name := c.form.required("RoleName")
			if err := c.form.done(); err != nil {
				return nil, err
			}
			if !c.roleExists(name) {
				return nil, newError("NoSuchEntity", "the role with name %s cannot be found", name).withStatus(http.StatusNotFound)
			}
			type role struct {
				Path       string
				RoleName   string
				RoleID     string `xml:"RoleId"`
				Arn        string
				CreateDate string
				Trust      string `xml:"AssumeRolePolicyDocument"`
			}
			trust := escape(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"vmie.amazonaws.com"},`+
				`"Action":"sts:AssumeRole","Condition":{"StringEquals":{"sts:ExternalId":"vmimport"}}}]}`, false)
			return struct{ Role role }{role{
				"/", name, "AROADBQP57FF2AEXAMPLE", roleARN(name), "2024-01-01T00:00:00Z", trust,
			}}, nil
		},
	})
}

// roleExists reports whether the account has the role.
func (c *call) roleExists(name string) bool {
	if c.knobs.Roles == nil {
		return name == "vmimport"
	}
	return slices.Contains(c.knobs.Roles, name)
}
