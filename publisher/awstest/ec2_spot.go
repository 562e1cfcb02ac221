package awstest

import (
	"maps"
	"slices"
	"time"
)

// A spotFleet is a Spot Fleet request. It starts no instances.
type spotFleet struct {
	id       string
	specs    []spotSpec
	configs  []spotConfig
	capacity int64
	role     string
	created  time.Time
	canceled bool
}

// A spotSpec is a launch specification.
type spotSpec struct {
	Image string `xml:"imageId"`
	Type  string `xml:"instanceType"`
}

// A spotConfig is a launch template with overrides, which cannot name images.
type spotConfig struct {
	ID        string              `xml:"launchTemplateSpecification>launchTemplateId,omitempty"`
	Name      string              `xml:"launchTemplateSpecification>launchTemplateName,omitempty"`
	Version   string              `xml:"launchTemplateSpecification>version"`
	Overrides items[spotOverride] `xml:"overrides"`
}

type spotOverride struct {
	Type string `xml:"instanceType"`
}

type spotFleetXML struct {
	ID       string            `xml:"spotFleetRequestId"`
	State    string            `xml:"spotFleetRequestState"`
	Created  string            `xml:"createTime"`
	Role     string            `xml:"spotFleetRequestConfig>iamFleetRole"`
	Capacity int64             `xml:"spotFleetRequestConfig>targetCapacity"`
	Type     string            `xml:"spotFleetRequestConfig>type"`
	Specs    items[spotSpec]   `xml:"spotFleetRequestConfig>launchSpecifications"`
	Configs  items[spotConfig] `xml:"spotFleetRequestConfig>launchTemplateConfigs"`
}

func (f *spotFleet) xml() spotFleetXML {
	x := spotFleetXML{f.id, "active", isoTime(f.created), f.role, f.capacity, "maintain", items[spotSpec]{f.specs}, items[spotConfig]{f.configs}}
	if f.canceled {
		x.State = "cancelled"
	}
	return x
}

// spotConfig reads a launch template, which has either an ID or a name and
// always a version ("FleetLaunchTemplateSpecification"). The caller holds s.mu.
func (c *call) spotConfig(f *form) spotConfig {
	spec := f.at("LaunchTemplateSpecification")
	out := spotConfig{ID: spec.string("LaunchTemplateId"), Name: spec.string("LaunchTemplateName"), Version: spec.required("Version")}
	for _, o := range f.each("Overrides") {
		out.Overrides.Item = append(out.Overrides.Item, spotOverride{o.string("InstanceType")})
	}
	if (out.ID == "") == (out.Name == "") {
		f.fail(violation("InvalidParameterCombination", "specify either the ID or the name of the launch template"))
	} else if _, err := c.launchTemplate(out.ID, out.Name); err != nil {
		f.fail(err)
	}
	return out
}

func (c *call) requestSpotFleet() (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, r := c.form.at("SpotFleetRequestConfig"), c.region(c.Region)
	fleet := &spotFleet{capacity: f.int("TargetCapacity", 0, 10_000), role: f.required("IamFleetRole"), created: c.now()}
	f.required("TargetCapacity")
	f.oneOf("Type", "maintain")
	for _, spec := range f.each("LaunchSpecifications") {
		fleet.specs = append(fleet.specs, spotSpec{spec.required("ImageId"), spec.required("InstanceType")})
	}
	for _, config := range f.each("LaunchTemplateConfigs") {
		fleet.configs = append(fleet.configs, c.spotConfig(config))
	}
	if (len(fleet.specs) == 0) == (len(fleet.configs) == 0) {
		f.fail(violation("InvalidSpotFleetRequestConfig", "specify either LaunchSpecifications or LaunchTemplateConfigs"))
	}
	if err := c.ready(); err != nil {
		return nil, err
	}
	fleet.id = r.id("sfr")
	r.fleets[fleet.id] = fleet
	return members{{"spotFleetRequestId", fleet.id}}, nil
}

func (c *call) cancelSpotFleets() (any, error) {
	ids := c.form.list("SpotFleetRequestId")
	if len(ids) == 0 {
		c.form.required("SpotFleetRequestId.1")
	}
	c.form.required("TerminateInstances")
	c.form.bool("TerminateInstances")
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	type canceled struct {
		ID  string `xml:"spotFleetRequestId"`
		Now string `xml:"currentSpotFleetRequestState"`
		Was string `xml:"previousSpotFleetRequestState"`
	}
	type failed struct {
		ID   string `xml:"spotFleetRequestId"`
		Code string `xml:"error>code"`
	}
	var done items[canceled]
	var failures items[failed]
	for _, id := range ids {
		fleet := c.region(c.Region).fleets[id]
		if fleet == nil {
			failures.Item = append(failures.Item, failed{id, "fleetRequestIdDoesNotExist"})
			continue
		}
		was := fleet.xml().State
		fleet.canceled = true
		done.Item = append(done.Item, canceled{id, fleet.xml().State, was})
	}
	return members{{"successfulFleetRequestSet", done}, {"unsuccessfulFleetRequestSet", failures}}, nil
}

func (c *call) describeSpotFleets() (any, error) {
	ids := c.form.list("SpotFleetRequestId")
	pages := pageRequest{c.form.int("MaxResults", 1, 1000), c.form.string("NextToken")}
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	fleets := c.region(c.Region).fleets
	for _, id := range ids {
		if fleets[id] == nil {
			return nil, newError("InvalidSpotFleetRequestId.NotFound", "the Spot Fleet request '%s' does not exist", id)
		}
	}
	var list []spotFleetXML
	for _, id := range slices.Sorted(maps.Keys(fleets)) {
		if len(ids) == 0 || slices.Contains(ids, id) {
			list = append(list, fleets[id].xml())
		}
	}
	return paged(pages, c, "spotFleetRequestConfigSet", list)
}

// A spotRequest is a persistent Spot Instance request. It starts no instance.
type spotRequest struct {
	ID    string   `xml:"spotInstanceRequestId"`
	State string   `xml:"state"`
	Type  string   `xml:"type"`
	Spec  spotSpec `xml:"launchSpecification"`
}

func (c *call) requestSpotInstances() (any, error) {
	f := c.form
	spec := f.at("LaunchSpecification")
	q := &spotRequest{State: "open", Type: f.oneOf("Type", "persistent"), Spec: spotSpec{spec.required("ImageId"), spec.required("InstanceType")}}
	f.required("Type") // one-time by default
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.region(c.Region)
	q.ID = r.id("sir")
	r.spots[q.ID] = q
	return members{{"spotInstanceRequestSet", items[*spotRequest]{[]*spotRequest{q}}}}, nil
}

// spotRequests returns the Spot Instance requests with the IDs, or all, sorted by
// ID. The caller holds s.mu.
func (c *call) spotRequests(ids []string) ([]*spotRequest, error) {
	spots := c.region(c.Region).spots
	if len(ids) == 0 {
		ids = slices.Sorted(maps.Keys(spots))
	}
	var list []*spotRequest
	for _, id := range ids {
		if spots[id] == nil {
			return nil, newError("InvalidSpotInstanceRequestID.NotFound", "the Spot Instance request '%s' does not exist", id)
		}
		list = append(list, spots[id])
	}
	return list, nil
}

func (c *call) describeSpotRequests() (any, error) {
	ids := c.form.list("SpotInstanceRequestId")
	fs := c.form.filters("Filter", "state", "type", "launch.image-id")
	pages := pageRequest{c.form.int("MaxResults", 5, 1000), c.form.string("NextToken")}
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	list, err := c.spotRequests(ids)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(q *spotRequest) bool {
		return !fs.match(map[string]string{"state": q.State, "type": q.Type, "launch.image-id": q.Spec.Image}, nil)
	})
	return paged(pages, c, "spotInstanceRequestSet", list)
}

func (c *call) cancelSpotRequests() (any, error) {
	ids := c.form.list("SpotInstanceRequestId")
	if len(ids) == 0 {
		c.form.required("SpotInstanceRequestId.1")
	}
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	list, err := c.spotRequests(ids)
	if err != nil {
		return nil, err
	}
	for _, q := range list {
		q.State = "cancelled"
	}
	return members{{"spotInstanceRequestSet", items[*spotRequest]{list}}}, nil
}
