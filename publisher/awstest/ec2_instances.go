package awstest

import (
	"encoding/base64"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// An instance is an instance with one EBS volume. Instances do not run
// anything: [Knobs.Console] and [Knobs.InstanceAddress] say what clients see of
// them, and [Server.Instances] and [Server.Disk] what they would boot.
type instance struct {
	id, reservation, token string
	image                  string // of the current root volume
	kind                   string // instance type
	architecture           string
	boot                   string
	device                 string
	root                   *volume // nil after a replacement that failed
	key                    string
	tags                   tags
	launched, available    time.Time
	stopped, terminated    time.Time // zero while it runs
	kept                   []string  // former root volumes that were not deleted
}

var instanceStates = map[string]int{"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48}

type stateXML struct {
	Code int    `xml:"code"`
	Name string `xml:"name"`
}

func (i *instance) state(now time.Time) stateXML {
	name := "running"
	switch {
	case !i.stopped.IsZero() && !now.Before(i.terminated):
		name = "terminated"
	case !i.stopped.IsZero():
		name = "shutting-down"
	case now.Before(i.available):
		name = "pending"
	}
	return stateXML{instanceStates[name], name}
}

// An InstanceInfo describes an instance for tests.
type InstanceInfo struct {
	ID, Region, State, Type string
	// Image and Snapshot are the sources of the current root volume.
	Image, Snapshot string
	// Volume is the ID of the current root volume, "" after a replacement that
	// failed, and KeptVolumes are the IDs of the ones that it replaced, unless
	// they were deleted.
	Volume      string
	KeptVolumes []string
	Tags        map[string]string
}

func (i *instance) info(region string, now time.Time) InstanceInfo {
	info := InstanceInfo{
		ID: i.id, Region: region, State: i.state(now).Name, Type: i.kind, Image: i.image, KeptVolumes: slices.Clone(i.kept), Tags: i.tags.plain(),
	}
	if i.root != nil {
		info.Volume, info.Snapshot = i.root.id, i.root.snapshot
	}
	return info
}

// Instances returns all instances, sorted by region and ID.
func (s *Server) Instances() []InstanceInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []InstanceInfo
	for _, name := range slices.Sorted(maps.Keys(s.regions)) {
		r := s.regions[name]
		r.settle(s.now())
		for _, id := range slices.Sorted(maps.Keys(r.instances)) {
			out = append(out, r.instances[id].info(name, s.now()))
		}
	}
	return out
}

type instanceXML struct {
	ID           string               `xml:"instanceId"`
	Image        string               `xml:"imageId"`
	State        stateXML             `xml:"instanceState"`
	Type         string               `xml:"instanceType"`
	Reason       *reason              `xml:"stateReason,omitempty"`
	Token        string               `xml:"clientToken,omitempty"`
	Key          string               `xml:"keyName,omitempty"`
	Launched     string               `xml:"launchTime"`
	Zone         string               `xml:"placement>availabilityZone"`
	Architecture string               `xml:"architecture"`
	Boot         string               `xml:"bootMode,omitempty"`
	Firmware     string               `xml:"currentInstanceBootMode"`
	Virtual      string               `xml:"virtualizationType"`
	Private      string               `xml:"privateIpAddress,omitempty"`
	Public       string               `xml:"ipAddress,omitempty"`
	RootType     string               `xml:"rootDeviceType"`
	Root         string               `xml:"rootDeviceName"`
	Mappings     items[attachmentXML] `xml:"blockDeviceMapping"`
	Tags         items[tag]           `xml:"tagSet"`
}

type attachmentXML struct {
	Device string `xml:"deviceName"`
	Volume string `xml:"ebs>volumeId"`
	Status string `xml:"ebs>status"`
	Delete bool   `xml:"ebs>deleteOnTermination"`
}

func (c *call) instanceXML(i *instance) instanceXML {
	x := instanceXML{
		ID: i.id, Image: i.image, State: i.state(c.now()), Type: i.kind, Token: i.token, Key: i.key, Launched: isoTime(i.launched), Zone: c.Region + "a",
		Architecture: i.architecture, Boot: i.boot, Firmware: firmware(i.architecture, i.boot), Virtual: "hvm", RootType: "ebs", Root: i.device, Tags: items[tag]{i.tags},
	}
	if x.State.Name != "terminated" {
		x.Private, x.Public = c.knobs.InstanceAddress, c.knobs.InstanceAddress
		if i.root != nil {
			x.Mappings.Item = []attachmentXML{{i.device, i.root.id, "attached", i.root.delete}}
		}
	} else {
		x.Reason = &reason{"Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown"}
	}
	return x
}

type reservationXML struct {
	ID        string             `xml:"reservationId"`
	Owner     string             `xml:"ownerId"`
	Instances items[instanceXML] `xml:"instancesSet"`
}

// instance returns an instance that exists for the client. The caller holds
// s.mu.
func (c *call) instance(id string) (*instance, error) {
	if !strings.HasPrefix(id, "i-") {
		return nil, violation("InvalidInstanceID.Malformed", "invalid id: \"%s\"", id)
	}
	r := c.region(c.Region)
	r.settle(c.now())
	i := r.instances[id]
	if i == nil || c.now().Sub(i.launched) < c.knobs.Grace {
		return nil, newError("InvalidInstanceID.NotFound", "the instance ID '%s' does not exist", id)
	}
	return i, nil
}

// armType matches the instance types with Graviton processors: the letter g is
// among those after the generation ("Amazon EC2 instance type naming
// conventions").
var armType = regexp.MustCompile(`^(a1|[a-z]+[0-9]+[a-z]*g[a-z]*)\.`)

// bootable returns an image and the volume that it describes, if instances can
// boot it. The caller holds s.mu.
func (c *call) bootable(id string) (*image, *ebs, error) {
	im, err := c.image(id)
	if err != nil {
		return nil, nil, err
	}
	if state := im.stateAt(c.now()); state != "available" {
		return nil, nil, newError("InvalidAMIID.Unavailable", "the image ID '[%s]' is %s", id, state)
	}
	for _, m := range im.mappings {
		if m.Device != im.root || m.Ebs == nil {
			continue
		}
		p := c.region(c.Region).snapshots[m.Ebs.Snapshot]
		if p != nil && p.tier(c.now()) == "archive" {
			return nil, nil, newError("IncorrectState", "the snapshot '%s' is archived", p.id)
		}
		if p != nil {
			return im, m.Ebs, nil
		}
	}
	return nil, nil, newError("InvalidSnapshot.NotFound", "the root snapshot of '%s' does not exist", id)
}

func (c *call) runInstances() (any, error) {
	f := c.form
	id, kind, token := f.required("ImageId"), f.required("InstanceType"), f.string("ClientToken")
	f.required("MinCount")
	f.required("MaxCount")
	low, high := f.int("MinCount", 1, 20), f.int("MaxCount", 1, 20)
	if low > high {
		f.fail(violation("InvalidParameterCombination", "MinCount %d is more than MaxCount %d", low, high))
	}
	key := f.string("KeyName")
	f.base64("UserData")
	f.oneOf("InstanceInitiatedShutdownBehavior", "stop", "terminate")
	f.string("SubnetId")
	f.list("SecurityGroupId")
	profile, options := f.at("IamInstanceProfile"), f.at("MetadataOptions")
	profile.string("Arn")
	profile.string("Name")
	options.oneOf("HttpTokens", "optional", "required")
	options.oneOf("HttpEndpoint", "enabled", "disabled")
	options.int("HttpPutResponseHopLimit", 1, 64)
	given := f.tagsFor("instance", "volume")
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.region(c.Region)
	reservation, parameters, err := c.repeated(token)
	if err != nil {
		return nil, err
	}
	if reservation == "" {
		im, disk, err := c.bootable(id)
		if err != nil {
			return nil, err
		}
		if quota := c.knobs.Instances; quota > 0 && r.running(c.now())+int(high) > quota {
			return nil, newError("VcpuLimitExceeded", "you have requested more vCPU capacity than your current vCPU limit allows for the instance bucket that the specified instance type belongs to")
		}
		if arm := armType.MatchString(kind); arm != strings.HasPrefix(im.architecture, "arm64") {
			return nil, violation("InvalidParameterValue", "the architecture '%s' of the AMI does not match the instance type '%s'", im.architecture, kind)
		}
		reservation = r.id("r")
		for range high {
			i := &instance{
				id: r.id("i"), reservation: reservation, token: token, image: id, kind: kind, architecture: im.architecture, boot: im.boot,
				device: im.root, key: key, tags: given["instance"], launched: c.now(),
			}
			i.root = r.newVolume(disk, i, given["volume"], c.now())
			i.available = i.launched.Add(c.knobs.Settle)
			r.instances[i.id] = i
		}
		r.remember(c.Operation, token, parameters, reservation)
	}
	var list []instanceXML
	for _, id := range slices.Sorted(maps.Keys(r.instances)) {
		if i := r.instances[id]; i.reservation == reservation {
			if x := c.instanceXML(i); i.stopped.IsZero() {
				list = append(list, x)
			} else { // "Error codes for the Amazon EC2 API"
				return nil, newError("IdempotentInstanceTerminated", "the request uses the client token of the instance %s, which is %s", id, x.State.Name)
			}
		}
	}
	return members{{"reservationId", reservation}, {"ownerId", Account}, {"instancesSet", items[instanceXML]{list}}}, nil
}

// matching returns the instances that a Describe request selects, sorted by ID.
// The caller holds s.mu.
func (c *call) matching(ids []string, fs filters) ([]*instance, error) {
	r, flaps := c.region(c.Region), c.flaps()
	for _, id := range ids {
		i, err := c.instance(id)
		if err == nil && flaps && c.young(i.launched) {
			err = newError("InvalidInstanceID.NotFound", "the instance ID '%s' does not exist", id)
		}
		if err != nil {
			return nil, err
		}
	}
	var list []*instance
	for _, id := range slices.Sorted(maps.Keys(r.instances)) {
		i, err := c.instance(id)
		if err != nil || len(ids) > 0 && !slices.Contains(ids, id) || flaps && c.young(i.launched) {
			continue
		}
		if fs.match(map[string]string{
			"architecture": i.architecture, "image-id": i.image, "instance-id": i.id, "instance-type": i.kind, "key-name": i.key,
			"instance-state-name": i.state(c.now()).Name, "reservation-id": i.reservation, "client-token": i.token,
		}, i.tags) {
			list = append(list, i)
		}
	}
	return list, nil
}

func (c *call) describeInstances() (any, error) {
	ids := c.form.list("InstanceId")
	fs := c.form.filters("Filter", "architecture", "client-token", "image-id", "instance-id", "instance-state-name", "instance-type", "key-name",
		"reservation-id", "tag-key", "tag:")
	pages := c.form.pageWithout("InstanceId", ids, 5)
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	found, err := c.matching(ids, fs)
	if err != nil {
		return nil, err
	}
	var list []reservationXML
	for _, i := range found {
		list = append(list, reservationXML{i.reservation, Account, items[instanceXML]{[]instanceXML{c.instanceXML(i)}}})
	}
	return paged(pages, c, "reservationSet", list)
}

// describeInstanceStatus returns the status checks, which pass when an instance
// has been running for Knobs.Settle. By default, only running instances are
// included.
func (c *call) describeInstanceStatus() (any, error) {
	ids, all := c.form.list("InstanceId"), c.form.bool("IncludeAllInstances")
	fs := c.form.filters("Filter", "instance-state-name")
	pages := c.form.pageWithout("InstanceId", ids, 5)
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	found, err := c.matching(ids, fs)
	if err != nil {
		return nil, err
	}
	type item struct {
		ID       string   `xml:"instanceId"`
		Zone     string   `xml:"availabilityZone"`
		State    stateXML `xml:"instanceState"`
		System   string   `xml:"systemStatus>status"`
		Instance string   `xml:"instanceStatus>status"`
	}
	var list []item
	for _, i := range found {
		x := item{ID: i.id, Zone: c.Region + "a", State: i.state(c.now()), System: "not-applicable"}
		if x.State.Name != "running" && !all {
			continue
		}
		if x.State.Name == "running" {
			x.System = "ok"
			if c.now().Before(i.available.Add(c.knobs.Settle)) {
				x.System = "initializing"
			}
		}
		if x.Instance = x.System; x.System == "ok" && (c.knobs.Impaired || i.root == nil) {
			x.Instance = "impaired"
		}
		list = append(list, x)
	}
	return paged(pages, c, "instanceStatusSet", list)
}

func (c *call) terminateInstances() (any, error) {
	ids := c.form.list("InstanceId")
	if len(ids) == 0 {
		c.form.required("InstanceId.1")
	}
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	type item struct {
		ID       string   `xml:"instanceId"`
		Current  stateXML `xml:"currentState"`
		Previous stateXML `xml:"previousState"`
	}
	var list []item
	for _, id := range ids {
		i, err := c.instance(id)
		if err != nil {
			return nil, err
		}
		x := item{ID: id, Previous: i.state(c.now())}
		if i.stopped.IsZero() {
			i.stopped, i.terminated = c.now(), c.now().Add(c.knobs.Settle)
		}
		x.Current = i.state(c.now())
		list = append(list, x)
	}
	return members{{"instancesSet", items[item]{list}}}, nil
}

func (c *call) getConsoleOutput() (any, error) {
	id := c.form.required("InstanceId")
	c.form.bool("Latest")
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	i, err := c.instance(id)
	if err != nil {
		c.mu.Unlock()
		return nil, err
	}
	info := i.info(c.Region, c.now())
	c.mu.Unlock()
	var output []byte
	if c.knobs.Console != nil {
		output = c.knobs.Console(info) // may call the server
	}
	const limit = 64 << 10 // "GetConsoleOutput" returns the last 64 KB
	output = output[max(0, len(output)-limit):]
	return members{{"instanceId", id}, {"timestamp", isoTime(time.Now())}, {"output", base64.StdEncoding.EncodeToString(output)}}, nil
}

func (c *call) getInstanceUEFIData() (any, error) {
	id := c.form.required("InstanceId")
	if err := c.ready(); err != nil {
		return nil, err
	}
	if strings.HasPrefix(id, "ami-") { // Terraform's data source aws_ami asks for images
		return nil, newError("InvalidInstanceID.Malformed", "invalid id: \"%s\"", id)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	i, err := c.instance(id)
	if err != nil {
		return nil, err
	}
	out := members{{"instanceId", id}}
	if im := c.region(c.Region).images[i.image]; im != nil && im.uefi != "" {
		out = append(out, member{"uefiData", im.uefi})
	}
	return out, nil
}
