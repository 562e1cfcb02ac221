package awstest

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// image is an AMI.
type image struct {
	id, name, description     string
	architecture, boot, tpm   string
	root, virtualization      string
	ena                       bool
	sriov, imds, uefi         string
	mappings                  []mapping
	tags                      tags
	shared                    map[string]bool
	created, available        time.Time
	deprecated                time.Time // zero is never
	protection                string
	sourceImage, sourceRegion string
	state                     string // "available" or "failed", once it is no longer pending
	reason                    string
}

// mapping is a block device of an image, in EC2's XML too.
type mapping struct {
	Device  string `xml:"deviceName"`
	Virtual string `xml:"virtualName,omitempty"`
	None    string `xml:"noDevice,omitempty"`
	Ebs     *ebs   `xml:"ebs,omitempty"`
}

type ebs struct {
	Snapshot   string `xml:"snapshotId,omitempty"`
	Size       int64  `xml:"volumeSize,omitempty"`
	Type       string `xml:"volumeType"`
	Iops       int64  `xml:"iops,omitempty"`
	Throughput int64  `xml:"throughput,omitempty"`
	Delete     bool   `xml:"deleteOnTermination"`
	Encrypted  bool   `xml:"encrypted"`
	Key        string `xml:"kmsKeyId,omitempty"`
}

func (im *image) stateAt(now time.Time) string {
	if now.Before(im.available) {
		return "pending"
	}
	return im.state
}

// imageName is what RegisterImage allows as a name.
var imageName = regexp.MustCompile(`^[A-Za-z0-9()\[\] ./'@_-]{3,128}$`)

// image returns an image that the client may know of. The caller holds s.mu.
func (c *call) image(id string) (*image, error) {
	if !strings.HasPrefix(id, "ami-") {
		return nil, violation("InvalidAMIID.Malformed", "invalid id: \"%s\" (expecting \"ami-...\")", id)
	}
	im := c.region(c.Region).images[id]
	if im == nil || c.now().Sub(im.created) < c.knobs.Grace {
		return nil, newError("InvalidAMIID.NotFound", "the image id '[%s]' does not exist", id)
	}
	return im, nil
}

// newImage puts an image into the request's region, if its name is free. The caller holds s.mu.
func (c *call) newImage(im *image) error {
	r := c.region(c.Region)
	for _, other := range r.images {
		if other.name == im.name {
			return newError("InvalidAMIName.Duplicate", "AMI name %s is already in use by AMI %s", im.name, other.id)
		}
	}
	if quota := cmp.Or(c.knobs.Images, 50000); len(r.images) >= quota {
		return newError("AMIQuotaExceeded", "there are %d AMIs already", len(r.images))
	}
	im.id, im.created, im.shared, im.state = r.id("ami"), c.now(), map[string]bool{}, "available"
	im.available = im.created.Add(c.knobs.Settle)
	r.images[im.id] = im
	return nil
}

func (f *form) mapping() mapping {
	m := mapping{Device: f.required("DeviceName"), Virtual: f.string("VirtualName"), None: f.string("NoDevice")}
	if !f.has("Ebs") {
		return m
	}
	e := f.at("Ebs")
	if e.has("Encrypted") && e.has("SnapshotId") {
		f.fail(violation("InvalidBlockDeviceMapping", "the encrypted flag cannot be specified since device %s has a snapshot specified", m.Device))
	}
	m.Ebs = &ebs{
		Snapshot:   e.string("SnapshotId"),
		Size:       e.int("VolumeSize", 1, 65536),
		Type:       cmp.Or(e.oneOf("VolumeType", "standard", "gp2", "gp3", "io1", "io2", "st1", "sc1"), "standard"),
		Iops:       e.int("Iops", 100, 256000),
		Throughput: e.int("Throughput", 125, 2000),
		Delete:     !e.has("DeleteOnTermination") || e.bool("DeleteOnTermination"),
		Encrypted:  e.bool("Encrypted"),
		Key:        e.string("KmsKeyId"),
	}
	switch needs := m.Ebs.Type == "io1" || m.Ebs.Type == "io2"; {
	case needs && m.Ebs.Iops == 0:
		f.fail(violation("MissingParameter", "volume type %s needs Iops", m.Ebs.Type))
	case m.Ebs.Iops != 0 && !needs && m.Ebs.Type != "gp3":
		f.fail(violation("InvalidParameterCombination", "Iops is not supported for volume type %s", m.Ebs.Type))
	case m.Ebs.Throughput != 0 && m.Ebs.Type != "gp3":
		f.fail(violation("InvalidParameterCombination", "Throughput is not supported for volume type %s", m.Ebs.Type))
	}
	if m.Ebs.Snapshot == "" && m.Ebs.Size == 0 {
		f.fail(violation("MissingParameter", "device %s needs a snapshot or a size", m.Device))
	}
	return m
}

func (c *call) registerImage() (any, error) {
	f := c.form
	im := &image{
		name:           f.required("Name"),
		description:    f.string("Description"),
		architecture:   cmp.Or(f.oneOf("Architecture", "i386", "x86_64", "arm64", "x86_64_mac", "arm64_mac"), "i386"),
		boot:           f.oneOf("BootMode", "legacy-bios", "uefi", "uefi-preferred"),
		tpm:            f.oneOf("TpmSupport", "v2.0"),
		root:           f.required("RootDeviceName"),
		virtualization: cmp.Or(f.oneOf("VirtualizationType", "hvm", "paravirtual"), "paravirtual"),
		ena:            f.bool("EnaSupport"),
		sriov:          f.oneOf("SriovNetSupport", "simple"),
		imds:           f.oneOf("ImdsSupport", "v2.0"),
		uefi:           f.base64("UefiData"),
		tags:           f.tagsFor("image")["image"],
	}
	for _, m := range f.each("BlockDeviceMapping") {
		im.mappings = append(im.mappings, m.mapping())
	}
	f.fail(im.check())
	if err := c.ready(); err != nil {
		return nil, err
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	for i, m := range im.mappings {
		if m.Ebs == nil || m.Ebs.Snapshot == "" {
			continue
		}
		p, err := c.ec2Snapshot(m.Ebs.Snapshot)
		if err != nil {
			return nil, err
		}
		if state := p.state(c.now()); state != "completed" {
			return nil, violation("IncorrectState", "the snapshot '%s' is %s, not completed", p.id, state)
		}
		if m.Ebs.Size != 0 && m.Ebs.Size < p.size {
			return nil, violation("InvalidBlockDeviceMapping", "the volume of %d GiB is smaller than snapshot '%s' of %d", m.Ebs.Size, p.id, p.size)
		}
		im.mappings[i].Ebs.Size = max(m.Ebs.Size, p.size)
		im.mappings[i].Ebs.Encrypted, im.mappings[i].Ebs.Key = p.encrypted, p.kmsKey
	}
	if err := c.newImage(im); err != nil {
		return nil, err
	}
	return members{{"imageId", im.id}}, nil
}

// check refuses images that EC2 refuses, and those that no machine of today boots.
func (im *image) check() error {
	wrong := func(format string, args ...any) error {
		return violation("InvalidParameterCombination", format, args...)
	}
	arm := strings.HasPrefix(im.architecture, "arm64")
	switch {
	case !imageName.MatchString(im.name):
		return violation("InvalidAMIName.Malformed", "AMI names have 3 to 128 letters, digits, or ()[] ./-'@_: %q", im.name)
	case len(im.description) > 255:
		return violation("InvalidParameterValue", "the description has %d characters, 255 at most", len(im.description))
	case im.virtualization != "hvm":
		return wrong("virtualization type paravirtual, which is the default, boots nowhere but on the oldest instances")
	case im.architecture == "i386":
		return wrong("architecture i386 is the default if none is given")
	case arm && im.boot != "" && im.boot != "uefi":
		return wrong("boot mode %s is not supported for architecture %s", im.boot, im.architecture)
	case im.tpm != "" && im.boot != "uefi":
		return wrong("TpmSupport %s needs boot mode uefi, not %q", im.tpm, im.boot)
	case im.uefi != "" && im.boot != "uefi" && im.boot != "uefi-preferred":
		return wrong("UefiData needs boot mode uefi or uefi-preferred, not %q", im.boot)
	}
	root := 0
	seen := map[string]bool{}
	for _, m := range im.mappings {
		if seen[m.Device] {
			return violation("InvalidBlockDeviceMapping", "device %s is mapped twice", m.Device)
		}
		seen[m.Device] = true
		if m.Device == im.root && m.Ebs != nil && m.Ebs.Snapshot != "" {
			root++
		}
	}
	if root != 1 {
		return violation("InvalidBlockDeviceMapping", "the root device %s is not mapped to a snapshot", im.root)
	}
	return nil
}

type imageXML struct {
	ID             string         `xml:"imageId"`
	Location       string         `xml:"imageLocation"`
	State          string         `xml:"imageState"`
	Owner          string         `xml:"imageOwnerId"`
	Created        string         `xml:"creationDate"`
	Public         bool           `xml:"isPublic"`
	Architecture   string         `xml:"architecture"`
	Type           string         `xml:"imageType"`
	Name           string         `xml:"name"`
	Description    string         `xml:"description,omitempty"`
	RootType       string         `xml:"rootDeviceType"`
	Root           string         `xml:"rootDeviceName"`
	Mappings       items[mapping] `xml:"blockDeviceMapping"`
	Virtualization string         `xml:"virtualizationType"`
	Hypervisor     string         `xml:"hypervisor"`
	Ena            bool           `xml:"enaSupport"`
	Sriov          string         `xml:"sriovNetSupport,omitempty"`
	Boot           string         `xml:"bootMode,omitempty"`
	TPM            string         `xml:"tpmSupport,omitempty"`
	Imds           string         `xml:"imdsSupport,omitempty"`
	Deprecated     string         `xml:"deprecationTime,omitempty"`
	Protection     string         `xml:"deregistrationProtection"`
	SourceImage    string         `xml:"sourceImageId,omitempty"`
	SourceRegion   string         `xml:"sourceImageRegion,omitempty"`
	Platform       string         `xml:"platformDetails"`
	Usage          string         `xml:"usageOperation"`
	Reason         *reason        `xml:"stateReason,omitempty"`
	Tags           items[tag]     `xml:"tagSet"`
}

type reason struct {
	Code    string `xml:"code"`
	Message string `xml:"message"`
}

func (im *image) xml(now time.Time) imageXML {
	x := imageXML{
		ID: im.id, Location: Account + "/" + im.name, State: im.stateAt(now), Owner: Account, Created: isoTime(im.created),
		Public: im.shared["all"], Architecture: im.architecture, Type: "machine", Name: im.name, Description: im.description,
		RootType: "ebs", Root: im.root, Mappings: items[mapping]{im.mappings}, Virtualization: im.virtualization, Hypervisor: "xen",
		Ena: im.ena, Sriov: im.sriov, Boot: im.boot, TPM: im.tpm, Imds: im.imds, Protection: cmp.Or(im.protection, "disabled"),
		SourceImage: im.sourceImage, SourceRegion: im.sourceRegion, Platform: "Linux/UNIX", Usage: "RunInstances",
		Tags: items[tag]{im.tags},
	}
	if !im.deprecated.IsZero() {
		x.Deprecated = isoTime(im.deprecated)
	}
	if x.State == "failed" {
		x.Reason = &reason{"Server.InternalError", im.reason}
	}
	return x
}

func (c *call) describeImages() (any, error) {
	ids, owners := c.form.list("ImageId"), c.form.list("Owner")
	executable := c.form.list("ExecutableBy")
	fs := c.form.filters("Filter", "architecture", "block-device-mapping.snapshot-id", "boot-mode", "description", "ena-support",
		"image-id", "image-type", "is-public", "name", "owner-id", "root-device-name", "root-device-type", "source-image-id",
		"source-image-region", "state", "tag-key", "tag:", "tpm-support", "virtualization-type", "creation-date")
	deprecated := c.form.bool("IncludeDeprecated")
	c.form.bool("IncludeDisabled")
	pages := c.form.slicer(1)
	if len(ids) > 0 && pages.max > 0 {
		c.form.fail(violation("InvalidParameterCombination", "ImageId and MaxResults cannot be used together"))
	}
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r, flaps, now := c.region(c.Region), c.flaps(), c.now()
	for _, id := range ids {
		im, err := c.image(id)
		if err != nil {
			return nil, err
		}
		if flaps && c.young(im.created) {
			return nil, newError("InvalidAMIID.NotFound", "the image id '[%s]' does not exist", id)
		}
	}
	var list []imageXML
	for _, id := range slices.Sorted(maps.Keys(r.images)) {
		im, err := c.image(id)
		if err != nil || len(ids) > 0 && !slices.Contains(ids, id) || flaps && c.young(im.created) {
			continue
		}
		x := im.xml(now)
		// The owner sees a deprecated image in any case.
		if !im.deprecated.IsZero() && now.After(im.deprecated) && !deprecated && len(owners) == 0 && len(ids) == 0 {
			continue
		}
		var snapshots string
		for _, m := range im.mappings {
			if m.Ebs != nil {
				snapshots = cmp.Or(snapshots, m.Ebs.Snapshot)
			}
		}
		if mine(owners) && mine(executable) && fs.match(map[string]string{
			"architecture": x.Architecture, "block-device-mapping.snapshot-id": snapshots, "boot-mode": x.Boot,
			"creation-date": x.Created, "description": x.Description, "ena-support": strconv.FormatBool(x.Ena), "image-id": x.ID,
			"image-type": x.Type, "is-public": strconv.FormatBool(x.Public), "name": x.Name, "owner-id": x.Owner,
			"root-device-name": x.Root, "root-device-type": x.RootType, "source-image-id": x.SourceImage,
			"source-image-region": x.SourceRegion, "state": x.State, "tpm-support": x.TPM, "virtualization-type": x.Virtualization,
		}, im.tags) {
			list = append(list, x)
		}
	}
	return paged(pages, c, "imagesSet", list)
}

func (c *call) deregisterImage() (any, error) {
	id, all := c.form.required("ImageId"), c.form.bool("DeleteAssociatedSnapshots")
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.region(c.Region)
	im, err := c.image(id)
	if err != nil {
		return nil, err
	}
	if im.protection != "" {
		return nil, newError("OperationNotPermitted", "the image %s is protected from deregistration", id)
	}
	delete(r.images, id)
	type result struct {
		Snapshot string `xml:"snapshotId"`
		Code     string `xml:"returnCode"`
	}
	var results []result
	for _, m := range im.mappings {
		if !all || m.Ebs == nil || r.snapshots[m.Ebs.Snapshot] == nil {
			continue
		}
		if len(r.users(m.Ebs.Snapshot)) > 0 {
			results = append(results, result{m.Ebs.Snapshot, "skipped"})
			continue
		}
		c.drop(r, r.snapshots[m.Ebs.Snapshot])
		results = append(results, result{m.Ebs.Snapshot, "success"})
	}
	out := members{{"return", true}}
	if all {
		out = append(out, member{"deleteSnapshotResultSet", items[result]{results}})
	}
	return out, nil
}

func (c *call) copyImage() (any, error) {
	f := c.form
	source, from, name := f.required("SourceImageId"), f.required("SourceRegion"), f.required("Name")
	description, token := f.string("Description"), f.string("ClientToken")
	withTags, key, encrypted := f.bool("CopyImageTags"), f.string("KmsKeyId"), f.bool("Encrypted")
	f.int("SnapshotCopyCompletionDurationMinutes", 15, 2880)
	given := f.tagsFor("image", "snapshot")
	encrypted, key, err := c.encryption(encrypted, key)
	if err != nil {
		f.fail(err)
	}
	if !imageName.MatchString(name) {
		f.fail(violation("InvalidAMIName.Malformed", "AMI names have 3 to 128 letters, digits, or ()[] ./-'@_: %q", name))
	}
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.region(c.Region)
	parameters := f.parameters("DryRun")
	id, mismatch := r.once(c.Operation, token, parameters)
	if mismatch {
		return nil, violation("IdempotentParameterMismatch", "the client token %q came with other parameters before", token)
	}
	if id != "" {
		return members{{"imageId", id}}, nil
	}
	old := c.region(from).images[source]
	if old == nil {
		return nil, newError("InvalidAMIID.NotFound", "the image id '[%s]' does not exist in %s", source, from)
	}
	if state := old.stateAt(c.now()); state != "available" {
		return nil, newError("InvalidAMIID.Unavailable", "the image '%s' is %s", source, state)
	}
	im := *old
	im.name, im.description, im.sourceImage, im.sourceRegion = name, description, source, from
	im.tags, im.deprecated, im.protection = given["image"], time.Time{}, ""
	if withTags {
		if im.tags, err = old.tags.merge(given["image"]); err != nil {
			return nil, err
		}
	}
	im.mappings = slices.Clone(old.mappings)
	if err := c.newImage(&im); err != nil {
		return nil, err
	}
	for i, m := range im.mappings {
		if m.Ebs == nil || m.Ebs.Snapshot == "" {
			continue
		}
		p := c.region(from).snapshots[m.Ebs.Snapshot]
		if p == nil {
			im.state, im.reason = "failed", fmt.Sprintf("the snapshot %s does not exist", m.Ebs.Snapshot)
			continue
		}
		copied := c.copyOf(p, encrypted, key)
		copied.description, copied.tags = fmt.Sprintf("Copied for DestinationAmi %s from SourceAmi %s for SourceSnapshot %s", im.id, source, p.id), given["snapshot"]
		e := *m.Ebs
		e.Snapshot, e.Encrypted, e.Key = copied.id, copied.encrypted, copied.kmsKey
		im.mappings[i].Ebs = &e
	}
	r.remember(c.Operation, token, parameters, im.id)
	return members{{"imageId", im.id}}, nil
}

// value reads an attribute that the request holds as NAME.Value, or as Attribute=name with Value.
func (f *form) value(name, attribute string) (string, bool) {
	if f.has(name + ".Value") {
		return f.string(name + ".Value"), true
	}
	if f.values.Get("Attribute") == attribute && f.has("Value") {
		return f.string("Value"), true
	}
	return "", false
}

func (c *call) modifyImageAttribute() (any, error) {
	f := c.form
	id := f.required("ImageId")
	switch f.oneOf("Attribute", "description", "imdsSupport", "launchPermission") {
	case "description", "imdsSupport":
	default:
		if f.string("Value") != "" {
			f.fail(violation("InvalidParameterCombination", "Value needs the attribute description or imdsSupport"))
		}
	}
	description, describe := f.value("Description", "description")
	imds, restrict := f.value("ImdsSupport", "imdsSupport")
	if restrict && imds != "v2.0" {
		f.fail(violation("InvalidParameterValue", "ImdsSupport is %q, not v2.0", imds))
	}
	add, remove := f.permissions("LaunchPermission", "Group", "UserId", "OrganizationArn", "OrganizationalUnitArn")
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	im, err := c.image(id)
	if err != nil {
		return nil, err
	}
	if slices.Contains(add, "all") {
		if c.knobs.BlockPublicAccess {
			return nil, newError("OperationNotPermitted", "AMIs cannot be shared with all: block public access is enabled")
		}
		for _, m := range im.mappings {
			if m.Ebs != nil && m.Ebs.Encrypted {
				return nil, violation("InvalidParameter", "the image %s has an encrypted snapshot and cannot be shared with all", id)
			}
		}
	}
	share(im.shared, add, remove)
	if describe {
		im.description = description
	}
	if restrict {
		im.imds = imds
	}
	return yes, nil
}

func (c *call) describeImageAttribute() (any, error) {
	id := c.form.required("ImageId")
	attribute := c.form.oneOf("Attribute", "launchPermission", "description", "bootMode", "tpmSupport", "uefiData", "imdsSupport",
		"sriovNetSupport", "deregistrationProtection", "blockDeviceMapping")
	if attribute == "" {
		c.form.required("Attribute")
	}
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	im, err := c.image(id)
	if err != nil {
		return nil, err
	}
	type value struct {
		Value string `xml:"value,omitempty"`
	}
	var v any
	switch attribute {
	case "launchPermission":
		v = permissionsXML(im.shared)
	case "blockDeviceMapping":
		v = items[mapping]{im.mappings}
	default:
		v = value{map[string]string{
			"description": im.description, "bootMode": im.boot, "tpmSupport": im.tpm, "uefiData": im.uefi, "imdsSupport": im.imds,
			"sriovNetSupport": im.sriov, "deregistrationProtection": cmp.Or(im.protection, "disabled"),
		}[attribute]}
	}
	return members{{"imageId", id}, {attribute, v}}, nil
}

func (c *call) enableImageDeprecation() (any, error) {
	id, text := c.form.required("ImageId"), c.form.required("DeprecateAt")
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		c.form.fail(violation("InvalidParameterValue", "DeprecateAt: %v", err))
	}
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	im, err := c.image(id)
	if err != nil {
		return nil, err
	}
	years := 10
	if im.shared["all"] {
		years = 2
	}
	if now := c.now(); at.Before(now) || at.After(now.AddDate(years, 0, 0)) {
		return nil, violation("InvalidParameterValue", "DeprecateAt %s is not within %d years from now", text, years)
	}
	im.deprecated = at.Round(time.Minute)
	return yes, nil
}

// change is the rest of the operations on an image, which have only its id as parameter.
func (c *call) change(apply func(*image)) (any, error) {
	id := c.form.required("ImageId")
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	im, err := c.image(id)
	if err != nil {
		return nil, err
	}
	apply(im)
	return yes, nil
}

func (c *call) disableImageDeprecation() (any, error) {
	return c.change(func(im *image) { im.deprecated = time.Time{} })
}

func (c *call) enableProtection() (any, error) {
	state := "enabled-without-cooldown"
	if c.form.bool("WithCooldown") {
		state = "enabled-with-cooldown"
	}
	return c.change(func(im *image) { im.protection = state })
}

func (c *call) disableProtection() (any, error) {
	return c.change(func(im *image) { im.protection = "" })
}
