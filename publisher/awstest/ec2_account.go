package awstest

import "slices"

func (c *call) describeRegions() (any, error) {
	names, fs := c.form.list("RegionName"), c.form.filters("Filter", "endpoint", "opt-in-status", "region-name")
	all := c.form.bool("AllRegions")
	if err := c.ready(); err != nil {
		return nil, err
	}
	type item struct {
		Name     string `xml:"regionName"`
		Endpoint string `xml:"regionEndpoint"`
		OptIn    string `xml:"optInStatus"`
	}
	var list []item
	for _, name := range names {
		if !slices.Contains(regions, name) || !all && slices.Contains(c.knobs.NotOptedIn, name) {
			return nil, newError("InvalidParameterValue", "invalid region: %s", name)
		}
	}
	for _, name := range regions {
		it := item{name, "ec2." + name + ".amazonaws.com", "opt-in-not-required"}
		if slices.Contains(optIn, name) {
			it.OptIn = "opted-in"
		}
		if slices.Contains(c.knobs.NotOptedIn, name) {
			if it.OptIn = "not-opted-in"; !all {
				continue
			}
		}
		if (len(names) == 0 || slices.Contains(names, name)) &&
			fs.match(map[string]string{"endpoint": it.Endpoint, "opt-in-status": it.OptIn, "region-name": name}, nil) {
			list = append(list, it)
		}
	}
	return members{{"regionInfo", items[item]{list}}}, nil
}

func (c *call) getDefaultKey() (any, error) {
	return members{{"kmsKeyId", "alias/aws/ebs"}}, c.ready()
}

func (c *call) getEncryptionByDefault() (any, error) {
	return members{{"ebsEncryptionByDefault", c.knobs.EncryptByDefault}}, c.ready()
}

func (c *call) getImageBlockPublicAccess() (any, error) {
	state := "unblocked"
	if c.knobs.BlockPublicAccess {
		state = "block-new-sharing"
	}
	return members{{"imageBlockPublicAccessState", state}, {"managedBy", "account"}}, c.ready()
}

func (c *call) getSnapshotBlockPublicAccess() (any, error) {
	state := "unblocked"
	if c.knobs.BlockPublicAccess {
		state = "block-new-sharing"
	}
	return members{{"state", state}, {"managedBy", "account"}}, c.ready()
}
