package awstest

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A volume is an EBS volume. Instances make volumes; nothing else does.
type volume struct {
	id, snapshot, kind string
	size               int64 // in GiB
	iops, throughput   int64
	encrypted          bool
	kmsKey             string
	created            time.Time
	instance           *instance // that it is attached to, or nil
	delete             bool      // on termination
	tags               tags
}

// newVolume adds a volume that is attached to an instance. The caller holds
// s.mu.
func (r *region) newVolume(e *ebs, i *instance, t tags, now time.Time) *volume {
	v := &volume{
		id: r.id("vol"), snapshot: e.Snapshot, kind: e.Type, size: e.Size, iops: e.Iops, throughput: e.Throughput, encrypted: e.Encrypted,
		kmsKey: e.Key, created: now, instance: i, delete: e.Delete, tags: t,
	}
	r.volumes[v.id] = v
	return v
}

// running returns the number of instances that count for the quota.
func (r *region) running(now time.Time) int {
	n := 0
	for _, i := range r.instances {
		if i.state(now).Name != "terminated" {
			n++
		}
	}
	return n
}

// volume returns a volume. The caller holds s.mu.
func (c *call) volume(id string) (*volume, error) {
	if !strings.HasPrefix(id, "vol-") {
		return nil, violation("InvalidVolumeID.Malformed", "invalid id: \"%s\" (expecting \"vol-...\")", id)
	}
	r := c.region(c.Region)
	r.settle(c.now())
	v := r.volumes[id]
	if v == nil {
		return nil, newError("InvalidVolume.NotFound", "the volume '%s' does not exist", id)
	}
	return v, nil
}

type volumeAttachmentXML struct {
	Volume   string `xml:"volumeId"`
	Instance string `xml:"instanceId"`
	Device   string `xml:"device"`
	Status   string `xml:"status"`
	Attached string `xml:"attachTime"`
	Delete   bool   `xml:"deleteOnTermination"`
}

type volumeXML struct {
	ID          string                     `xml:"volumeId"`
	Size        int64                      `xml:"size"`
	Snapshot    string                     `xml:"snapshotId"`
	Zone        string                     `xml:"availabilityZone"`
	Status      string                     `xml:"status"`
	Created     string                     `xml:"createTime"`
	Attachments items[volumeAttachmentXML] `xml:"attachmentSet"`
	Tags        items[tag]                 `xml:"tagSet"`
	Type        string                     `xml:"volumeType"`
	Iops        int64                      `xml:"iops,omitempty"`
	Throughput  int64                      `xml:"throughput,omitempty"`
	Encrypted   bool                       `xml:"encrypted"`
	Key         string                     `xml:"kmsKeyId,omitempty"`
}

func (c *call) volumeXML(v *volume) volumeXML {
	x := volumeXML{
		ID: v.id, Size: v.size, Snapshot: v.snapshot, Zone: c.Region + "a", Status: "available", Created: isoTime(v.created),
		Tags: items[tag]{v.tags}, Type: v.kind, Iops: v.iops, Throughput: v.throughput, Encrypted: v.encrypted, Key: v.kmsKey,
	}
	if i := v.instance; i != nil {
		x.Status = "in-use"
		x.Attachments.Item = []volumeAttachmentXML{{v.id, i.id, i.device, "attached", isoTime(v.created), v.delete}}
	}
	return x
}

func (c *call) describeVolumes() (any, error) {
	ids := c.form.list("VolumeId")
	fs := c.form.filters("Filter", "attachment.device", "attachment.instance-id", "encrypted", "size", "snapshot-id", "status", "tag-key", "tag:",
		"volume-id", "volume-type")
	pages := c.form.pageWithout("VolumeId", ids, 5)
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.region(c.Region)
	r.settle(c.now())
	if len(ids) == 0 {
		ids = slices.Sorted(maps.Keys(r.volumes))
	}
	var list []volumeXML
	for _, id := range ids {
		v, err := c.volume(id)
		if err != nil {
			return nil, err
		}
		x := c.volumeXML(v)
		var a volumeAttachmentXML
		if len(x.Attachments.Item) > 0 {
			a = x.Attachments.Item[0]
		}
		if fs.match(map[string]string{
			"attachment.device": a.Device, "attachment.instance-id": a.Instance, "encrypted": strconv.FormatBool(x.Encrypted),
			"size": strconv.FormatInt(x.Size, 10), "snapshot-id": x.Snapshot, "status": x.Status, "volume-id": x.ID, "volume-type": x.Type,
		}, v.tags) {
			list = append(list, x)
		}
	}
	return paged(pages, c, "volumeSet", list)
}

func (c *call) deleteVolume() (any, error) {
	id := c.form.required("VolumeId")
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	v, err := c.volume(id)
	if err != nil {
		return nil, err
	}
	if v.instance != nil {
		return nil, newError("VolumeInUse", "the volume %s is attached to %s", id, v.instance.id)
	}
	delete(c.region(c.Region).volumes, id)
	return yes, nil
}
