package awstest

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// A scalingGroup is an Auto Scaling group. It starts no instances.
type scalingGroup struct {
	Name      string         `xml:"AutoScalingGroupName"`
	Config    string         `xml:"LaunchConfigurationName,omitempty"`
	Template  *templateSpec  `xml:"LaunchTemplate,omitempty"`
	Mixed     *templateSpec  `xml:"MixedInstancesPolicy>LaunchTemplate>LaunchTemplateSpecification,omitempty"`
	Overrides []overrideSpec `xml:"MixedInstancesPolicy>LaunchTemplate>Overrides>member,omitempty"`
	Min       int64          `xml:"MinSize"`
	Max       int64          `xml:"MaxSize"`
}

// A templateSpec names a version of a launch template.
type templateSpec struct {
	ID      string `xml:"LaunchTemplateId,omitempty"`
	Name    string `xml:"LaunchTemplateName,omitempty"`
	Version string `xml:"Version,omitempty"`
}

// An overrideSpec replaces parts of the launch template of a group.
type overrideSpec struct {
	Type     string        `xml:"InstanceType,omitempty"`
	Image    string        `xml:"ImageId,omitempty"`
	Template *templateSpec `xml:"LaunchTemplateSpecification,omitempty"`
}

type launchConfiguration struct {
	Name  string `xml:"LaunchConfigurationName"`
	Image string `xml:"ImageId"`
	Type  string `xml:"InstanceType"`
}

// autoscalingService implements what names images in Amazon EC2 Auto Scaling.
func autoscalingService() *service {
	return queryService(autoscalingVersion, map[string]func(*call) (any, error){
		"CreateAutoScalingGroup":       (*call).createScalingGroup,
		"CreateLaunchConfiguration":    (*call).createLaunchConfiguration,
		"DescribeAutoScalingGroups":    (*call).describeScalingGroups,
		"DescribeLaunchConfigurations": (*call).describeLaunchConfigurations,
	})
}

func (c *call) createLaunchConfiguration() (any, error) {
	f := c.form
	lc := launchConfiguration{f.required("LaunchConfigurationName"), f.required("ImageId"), f.required("InstanceType")}
	if err := f.done(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.region(c.Region)
	if _, taken := r.configurations[lc.Name]; taken {
		return nil, newError("AlreadyExists", "launch configuration by this name already exists")
	}
	r.configurations[lc.Name] = lc
	return struct{}{}, nil
}

// templateSpec reads a LaunchTemplateSpecification, which names a template by
// either ID or name. It returns nil if there is none.
func (c *call) templateSpec(f *form, name string) *templateSpec {
	if !f.has(name) {
		return nil
	}
	f = f.at(name)
	s := &templateSpec{f.string("LaunchTemplateId"), f.string("LaunchTemplateName"), f.string("Version")}
	if (s.ID == "") == (s.Name == "") {
		f.fail(violation("ValidationError", "you must specify either LaunchTemplateId or LaunchTemplateName"))
		return s
	}
	for _, t := range c.region(c.Region).templates {
		if t.id == s.ID || t.name == s.Name {
			return s
		}
	}
	f.fail(newError("ValidationError", "the launch template does not exist"))
	return s
}

func (c *call) createScalingGroup() (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, r := c.form, c.region(c.Region)
	g := &scalingGroup{
		Name: f.required("AutoScalingGroupName"), Config: f.string("LaunchConfigurationName"),
		Min: f.int("MinSize", 0, 1000), Max: f.int("MaxSize", 0, 1000), Template: c.templateSpec(f, "LaunchTemplate"),
	}
	f.required("MinSize")
	f.required("MaxSize")
	if zones, subnets := f.list("AvailabilityZones.member"), f.string("VPCZoneIdentifier"); len(zones) == 0 && subnets == "" {
		f.fail(violation("ValidationError", "at least one Availability Zone or VPC subnet is required"))
	}
	sources := 0
	for _, is := range []bool{g.Config != "", g.Template != nil, f.has("MixedInstancesPolicy")} {
		if is {
			sources++
		}
	}
	if sources != 1 {
		f.fail(violation("ValidationError", "valid requests must contain one of LaunchTemplate, LaunchConfigurationName, InstanceId or MixedInstancesPolicy"))
	}
	if f.has("MixedInstancesPolicy") {
		template := f.at("MixedInstancesPolicy").at("LaunchTemplate")
		g.Mixed = c.templateSpec(template, "LaunchTemplateSpecification")
		for _, o := range template.each("Overrides.member") {
			g.Overrides = append(g.Overrides, overrideSpec{o.string("InstanceType"), o.string("ImageId"), c.templateSpec(o, "LaunchTemplateSpecification")})
		}
	}
	if err := f.done(); err != nil {
		return nil, err
	}
	if _, exists := r.configurations[g.Config]; g.Config != "" && !exists {
		return nil, newError("ValidationError", "launch configuration name not found")
	}
	if r.groups[g.Name] != nil {
		return nil, newError("AlreadyExists", "AutoScalingGroup by this name already exists")
	}
	r.groups[g.Name] = g
	return struct{}{}, nil
}

func (c *call) describeScalingGroups() (any, error) {
	names := c.form.list("AutoScalingGroupNames.member")
	c.mu.Lock()
	defer c.mu.Unlock()
	groups := c.region(c.Region).groups
	page, next, err := pageOf(c.form, names, slices.Sorted(maps.Keys(groups)))
	if err != nil {
		return nil, err
	}
	var out struct {
		Groups []*scalingGroup `xml:"AutoScalingGroups>member"`
		Next   string          `xml:"NextToken,omitempty"`
	}
	for _, name := range page {
		out.Groups = append(out.Groups, groups[name])
	}
	out.Next = next
	return out, nil
}

func (c *call) describeLaunchConfigurations() (any, error) {
	names := c.form.list("LaunchConfigurationNames.member")
	c.mu.Lock()
	defer c.mu.Unlock()
	configurations := c.region(c.Region).configurations
	page, next, err := pageOf(c.form, names, slices.Sorted(maps.Keys(configurations)))
	if err != nil {
		return nil, err
	}
	var out struct {
		Configurations []launchConfiguration `xml:"LaunchConfigurations>member"`
		Next           string                `xml:"NextToken,omitempty"`
	}
	for _, name := range page {
		out.Configurations = append(out.Configurations, configurations[name])
	}
	out.Next = next
	return out, nil
}

// pageOf returns a page of the names that exist and are wanted, all by default,
// and the token of the next page.
func pageOf(f *form, wanted, names []string) (page []string, next string, err error) {
	size, token := f.int("MaxRecords", 1, 100), f.string("NextToken")
	if err := f.done(); err != nil {
		return nil, "", err
	}
	if size == 0 {
		size = 50
	}
	if len(wanted) > 0 {
		names = slices.DeleteFunc(names, func(n string) bool { return !slices.Contains(wanted, n) })
	}
	first := 0
	if token != "" {
		if first, err = strconv.Atoi(strings.TrimPrefix(token, "page-")); err != nil || first < 1 || first >= len(names) {
			return nil, "", violation("InvalidNextToken", "the NextToken value is not valid").withStatus(http.StatusBadRequest)
		}
	}
	if end := first + int(size); end < len(names) {
		return names[first:end], "page-" + strconv.Itoa(end), nil
	}
	return names[first:], "", nil
}
