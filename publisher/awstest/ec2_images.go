package awstest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// An image is an AMI.
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
	deprecated                time.Time // zero means never
	protection                string
	cooldown                  time.Time // until which a disabled protection holds
	sourceImage, sourceRegion string
	state                     string // after pending: available, disabled or failed
	reason                    string
}

// A mapping is a block device of an image, and its XML.
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

// image returns an image that exists for the client. The caller holds s.mu.
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

// addImage adds an image to the request's region, if its name is unused. The
// caller holds s.mu.
func (c *call) addImage(im *image) error {
	r := c.region(c.Region)
	for _, other := range r.images {
		if other.name == im.name {
			return newError("InvalidAMIName.Duplicate", "AMI name %s is already in use by AMI %s", im.name, other.id)
		}
	}
	if quota := cmp.Or(c.knobs.Images, 50000); len(r.images) >= quota {
		return newError("AMIQuotaExceeded", "the account has reached its quota of AMIs: %d", len(r.images))
	}
	im.id, im.created, im.shared, im.state = r.id("ami"), c.now(), map[string]bool{}, "available"
	im.available = im.created.Add(c.knobs.Settle)
	r.images[im.id] = im
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
	disabled := c.form.bool("IncludeDisabled")
	pages := c.form.pageWithout("ImageId", ids, 1)
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
		if x.State == "disabled" && !disabled {
			continue // "Disable an Amazon EC2 AMI" in the EC2 user guide
		}
		// Requests for the account's own images include the deprecated ones.
		if !im.deprecated.IsZero() && now.After(im.deprecated) && !deprecated && len(owners) == 0 && len(ids) == 0 {
			continue
		}
		var snapshots string
		for _, m := range im.mappings {
			if m.Ebs != nil {
				snapshots = cmp.Or(snapshots, m.Ebs.Snapshot)
			}
		}
		if ownedBySelf(owners) && ownedBySelf(executable) && fs.match(map[string]string{
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
	if im.protection != "" || c.now().Before(im.cooldown) {
		return nil, newError("OperationNotPermitted", "the image %s is protected from deregistration", id)
	}
	if keep := c.knobs.RecycleBin; keep > 0 {
		r.bin.images[id] = binned[*image]{im, c.now(), c.now().Add(keep)}
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
		if r.snapshots[m.Ebs.Snapshot].isLocked(c.now()) {
			results = append(results, result{m.Ebs.Snapshot, "client-error"})
			continue
		}
		c.removeSnapshot(r, r.snapshots[m.Ebs.Snapshot])
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
	description, token := f.description("Description"), f.string("ClientToken")
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
	id, parameters, err := c.repeated(token)
	if err != nil {
		return nil, err
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
	if err := c.addImage(&im); err != nil {
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
