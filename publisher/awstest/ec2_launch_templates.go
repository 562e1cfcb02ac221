package awstest

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A launchTemplate has versions, of which only the image is kept. The first is
// the default version.
type launchTemplate struct {
	id, name string
	images   []string // by version, from 1; may be resolve:ssm:PARAMETER
	created  time.Time
}

type launchTemplateXML struct {
	ID      string `xml:"launchTemplateId"`
	Name    string `xml:"launchTemplateName"`
	Created string `xml:"createTime"`
	Default int    `xml:"defaultVersionNumber"`
	Latest  int    `xml:"latestVersionNumber"`
}

type launchVersionXML struct {
	ID      string `xml:"launchTemplateId"`
	Name    string `xml:"launchTemplateName"`
	Version int    `xml:"versionNumber"`
	Default bool   `xml:"defaultVersion"`
	Image   string `xml:"launchTemplateData>imageId,omitempty"`
}

func (t *launchTemplate) xml() launchTemplateXML {
	return launchTemplateXML{t.id, t.name, isoTime(t.created), 1, len(t.images)}
}

func (t *launchTemplate) version(n int) launchVersionXML {
	return launchVersionXML{t.id, t.name, n, n == 1, t.images[n-1]}
}

// launchData reads the parameters of a version.
func (f *form) launchData() (image string) {
	data := f.at("LaunchTemplateData")
	data.string("InstanceType")
	f.string("ClientToken")
	f.string("VersionDescription")
	return data.string("ImageId")
}

func (c *call) createLaunchTemplate() (any, error) {
	t := &launchTemplate{name: c.form.required("LaunchTemplateName"), images: []string{c.form.launchData()}}
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.region(c.Region)
	for _, other := range r.templates {
		if other.name == t.name {
			return nil, newError("InvalidLaunchTemplateName.AlreadyExistsException", "launch template name '%s' is already in use", t.name)
		}
	}
	t.id, t.created = r.id("lt"), c.now()
	r.templates[t.id] = t
	return members{{"launchTemplate", t.xml()}}, nil
}

// launchTemplate returns the launch template of the request. The caller holds
// s.mu.
func (c *call) launchTemplate(id, name string) (*launchTemplate, error) {
	for _, t := range c.region(c.Region).templates {
		if id != "" && t.id == id || id == "" && t.name == name {
			return t, nil
		}
	}
	return nil, newError("InvalidLaunchTemplateId.NotFound", "the specified launch template, '%s', does not exist", cmp.Or(id, name))
}

func (c *call) createLaunchTemplateVersion() (any, error) {
	id, name, image := c.form.string("LaunchTemplateId"), c.form.string("LaunchTemplateName"), c.form.launchData()
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t, err := c.launchTemplate(id, name)
	if err != nil {
		return nil, err
	}
	t.images = append(t.images, image)
	return members{{"launchTemplateVersion", t.version(len(t.images))}}, nil
}

func (c *call) describeLaunchTemplates() (any, error) {
	ids, names := c.form.list("LaunchTemplateId"), c.form.list("LaunchTemplateName")
	pages := pageRequest{c.form.int("MaxResults", 1, 200), c.form.string("NextToken")}
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.region(c.Region)
	var list []launchTemplateXML
	for _, id := range slices.Sorted(maps.Keys(r.templates)) {
		if t := r.templates[id]; (len(ids) == 0 || slices.Contains(ids, id)) && (len(names) == 0 || slices.Contains(names, t.name)) {
			list = append(list, t.xml())
		}
	}
	return paged(pages, c, "launchTemplates", list)
}

func (c *call) describeLaunchTemplateVersions() (any, error) {
	id, name, versions := c.form.string("LaunchTemplateId"), c.form.string("LaunchTemplateName"), c.form.list("LaunchTemplateVersion")
	resolve := c.form.bool("ResolveAlias")
	pages := pageRequest{c.form.int("MaxResults", 1, 200), c.form.string("NextToken")}
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t, err := c.launchTemplate(id, name)
	if err != nil {
		return nil, err
	}
	var list []launchVersionXML
	for n := len(t.images); n > 0; n-- {
		v := t.version(n)
		if len(versions) > 0 && !slices.ContainsFunc(versions, func(w string) bool {
			return w == strconv.Itoa(n) || w == "$Default" && n == 1 || w == "$Latest" && n == len(t.images)
		}) {
			continue
		}
		if parameter, ok := strings.CutPrefix(v.Image, "resolve:ssm:"); ok && resolve {
			p := c.parameters()[parameter]
			if p == nil {
				return nil, newError("InvalidParameterValue", "the parameter %s does not exist", parameter)
			}
			v.Image = p.value
		}
		list = append(list, v)
	}
	return paged(pages, c, "launchTemplateVersionSet", list)
}
