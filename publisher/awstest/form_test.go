package awstest_test

import (
	"strings"
	"testing"

	"github.com/slipway-build/slipway/publisher/awstest"
)

// The SDK cannot send these requests, which do not match the model.
func TestUnknownParameter(t *testing.T) {
	c := start(t, awstest.Knobs{})
	for want, test := range map[string]struct{ service, body string }{
		"parameter Colour is not recognized":   {"ec2", "Action=DescribeRegions&Version=2016-11-15&Colour=red"},
		"must contain the parameter ImageId":   {"ec2", "Action=DeregisterImage&Version=2016-11-15"},
		"does not implement ec2:StopInstances": {"ec2", "Action=StopInstances&Version=2016-11-15"},
		"version \"2000-01-01\" is not":        {"ec2", "Action=DescribeRegions&Version=2000-01-01"},
		"parameter Version occurs 2 times":     {"ec2", "Action=DescribeRegions&Version=2016-11-15&Version=2016-11-15"},
		"AllRegions is invalid":                {"ec2", "Action=DescribeRegions&Version=2016-11-15&AllRegions=perhaps"},
		"parameter Other is not recognized":    {"sts", "Action=GetCallerIdentity&Version=2011-06-15&Other=1"},
		"unknown field \"Colour\"":             {"ebs", `{"VolumeSize":1,"Colour":"red"}`},
		"does not implement the target \"\"":   {"ssm", `{}`},
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
