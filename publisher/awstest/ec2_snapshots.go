package awstest

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// snapshotXML is a snapshot in the XML of EC2.
type snapshotXML struct {
	ID          string     `xml:"snapshotId"`
	Volume      string     `xml:"volumeId"`
	State       string     `xml:"status"`
	Message     string     `xml:"statusMessage,omitempty"`
	Started     string     `xml:"startTime"`
	Completed   string     `xml:"completionTime,omitempty"`
	Progress    string     `xml:"progress"`
	Owner       string     `xml:"ownerId"`
	Size        int64      `xml:"volumeSize"`
	Description string     `xml:"description"`
	Encrypted   bool       `xml:"encrypted"`
	Key         string     `xml:"kmsKeyId,omitempty"`
	Tier        string     `xml:"storageTier"`
	Bytes       int64      `xml:"fullSnapshotSizeInBytes"`
	Tags        items[tag] `xml:"tagSet"`
}

func (p *snapshot) xml(now time.Time) snapshotXML {
	x := snapshotXML{
		ID: p.id, Volume: "vol-ffffffff", State: p.state(now), Message: p.failed, Started: isoTime(p.started),
		Progress: p.progress(now), Owner: Account, Size: p.size, Description: p.description, Encrypted: p.encrypted, Key: p.kmsKey,
		Tier: p.tier(now), Bytes: int64(len(p.blocks)) * BlockSize, Tags: items[tag]{p.tags},
	}
	if x.State == "completed" {
		x.Completed = isoTime(p.completed)
	}
	return x
}

// ec2Snapshot returns a snapshot that exists for the client. The caller holds
// s.mu.
func (c *call) ec2Snapshot(id string) (*snapshot, error) {
	if !strings.HasPrefix(id, "snap-") {
		return nil, violation("InvalidSnapshotID.Malformed", "invalid id: \"%s\" (expecting \"snap-...\")", id)
	}
	p := c.region(c.Region).snapshots[id]
	if p == nil || c.now().Sub(p.started) < c.knobs.Grace {
		return nil, newError("InvalidSnapshot.NotFound", "the snapshot '%s' does not exist", id)
	}
	return p, nil
}

// ownedBySelf reports whether the owners of a Describe request include the
// account.
func ownedBySelf(owners []string) bool {
	return len(owners) == 0 || slices.Contains(owners, "self") || slices.Contains(owners, Account)
}

func (c *call) describeSnapshots() (any, error) {
	ids, owners := c.form.list("SnapshotId"), c.form.list("Owner")
	restorable := c.form.list("RestorableBy")
	fs := c.form.filters("Filter", "description", "encrypted", "owner-id", "progress", "snapshot-id", "start-time", "status",
		"storage-tier", "tag-key", "tag:", "volume-id", "volume-size")
	pages := c.form.pageWithout("SnapshotId", ids, 5)
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r, flaps := c.region(c.Region), c.flaps()
	var found []*snapshot
	for _, id := range ids {
		p, err := c.ec2Snapshot(id)
		if err != nil {
			return nil, err
		}
		if flaps && c.young(p.started) && p.state(c.now()) != "completed" {
			return nil, newError("InvalidSnapshot.NotFound", "the snapshot '%s' does not exist", id)
		}
		found = append(found, p)
	}
	if len(ids) == 0 {
		for _, id := range slices.Sorted(maps.Keys(r.snapshots)) {
			if p, err := c.ec2Snapshot(id); err == nil && (!flaps || !c.young(p.started)) {
				found = append(found, p)
			}
		}
	}
	var list []snapshotXML
	for _, p := range found {
		x := p.xml(c.now())
		if flaps && c.young(p.started) && x.State == "completed" {
			x.State, x.Progress, x.Completed = "pending", "99%", ""
		}
		if ownedBySelf(owners) && ownedBySelf(restorable) && fs.match(map[string]string{
			"description": x.Description, "encrypted": strconv.FormatBool(x.Encrypted), "owner-id": x.Owner, "progress": x.Progress,
			"snapshot-id": x.ID, "start-time": x.Started, "status": x.State, "storage-tier": x.Tier, "volume-id": x.Volume,
			"volume-size": strconv.FormatInt(x.Size, 10),
		}, p.tags) {
			list = append(list, x)
		}
	}
	return paged(pages, c, "snapshotSet", list)
}

// onSnapshot ends the reading of parameters and calls operation with the
// request's snapshot, while it holds s.mu.
func (c *call) onSnapshot(operation func(*snapshot) (any, error)) (any, error) {
	id := c.form.required("SnapshotId")
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.ec2Snapshot(id)
	if err != nil {
		return nil, err
	}
	return operation(p)
}

func (c *call) deleteSnapshot() (any, error) {
	return c.onSnapshot(func(p *snapshot) (any, error) {
		r := c.region(c.Region)
		if users := r.users(p.id); len(users) > 0 {
			return nil, newError("InvalidSnapshot.InUse", "the snapshot %s is currently in use by %s", p.id, strings.Join(users, ", "))
		}
		c.purge(r)
		for id, b := range r.bin.images {
			if b.object.uses(p.id) {
				return nil, newError("InvalidSnapshot.InUse", "the snapshot %s is currently in use by %s", p.id, id)
			}
		}
		if p.isLocked(c.now()) {
			return nil, newError("OperationNotPermitted", "the snapshot %s is locked", p.id)
		}
		c.removeSnapshot(r, p)
		return yes, nil
	})
}

// uses reports whether a volume of the image starts with the snapshot.
func (im *image) uses(snapshot string) bool {
	return slices.ContainsFunc(im.mappings, func(m mapping) bool { return m.Ebs != nil && m.Ebs.Snapshot == snapshot })
}

// users returns the IDs of the images that use a snapshot. The caller holds
// s.mu.
func (r *region) users(id string) []string {
	var users []string
	for _, name := range slices.Sorted(maps.Keys(r.images)) {
		if r.images[name].uses(id) {
			users = append(users, name)
		}
	}
	return users
}

func (c *call) copySnapshot() (any, error) {
	f := c.form
	source, from := f.required("SourceSnapshotId"), f.required("SourceRegion")
	description, key, encrypted := f.description("Description"), f.string("KmsKeyId"), f.bool("Encrypted")
	f.string("PresignedUrl") // the fake does not need it
	if to := f.string("DestinationRegion"); to != "" && to != c.Region {
		f.fail(violation("InvalidParameterValue", "DestinationRegion is %s, but the request was sent to %s", to, c.Region))
	}
	f.int("CompletionDurationMinutes", 15, 2880)
	given := f.tagsFor("snapshot")
	encrypted, key, err := c.encryption(encrypted, key)
	if err != nil {
		f.fail(err)
	}
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.region(from).snapshots[source]
	if old == nil {
		return nil, newError("InvalidSnapshot.NotFound", "the snapshot '%s' does not exist in %s", source, from)
	}
	if state := old.state(c.now()); state != "completed" {
		return nil, newError("IncorrectState", "the snapshot '%s' is %s", source, state)
	}
	if old.tier(c.now()) == "archive" {
		return nil, newError("IncorrectState", "the snapshot '%s' is archived", source)
	}
	p := c.copyOf(old, encrypted, key)
	p.description, p.tags = description, given["snapshot"]
	return members{{"snapshotId", p.id}, {"tagSet", items[tag]{p.tags}}}, nil
}

// copyOf copies a snapshot to the request's region. The copy of an encrypted
// snapshot is encrypted. The caller holds s.mu.
func (c *call) copyOf(old *snapshot, encrypted bool, key string) *snapshot {
	p := c.newSnapshot(c.region(c.Region), old)
	p.lineage = p.id // a copy is not related to its source
	p.completed = c.now().Add(c.knobs.Settle)
	if encrypted || old.encrypted {
		p.encrypted, p.kmsKey = true, cmp.Or(key, keyARN(c.Region, ""))
	}
	return p
}

func (c *call) modifySnapshotAttribute() (any, error) {
	f := c.form
	f.oneOf("Attribute", "createVolumePermission", "productCodes")
	add, remove := f.permissions("CreateVolumePermission", "Group", "UserId")
	return c.onSnapshot(func(p *snapshot) (any, error) {
		if slices.Contains(add, "all") {
			if p.encrypted {
				return nil, violation("OperationNotPermitted", "the encrypted snapshot %s cannot be shared publicly", p.id)
			}
			if c.knobs.BlockPublicAccess {
				return nil, newError("OperationNotPermitted", "snapshots cannot be shared publicly: block public access is enabled")
			}
		}
		if p.encrypted && len(add) > 0 && strings.HasSuffix(p.kmsKey, keyARN("", "")[len("arn:aws:kms::"+Account+":"):]) {
			return nil, violation("InvalidParameter", "the snapshot %s is encrypted with the default key and cannot be shared", p.id)
		}
		share(p.shared, add, remove)
		return yes, nil
	})
}

func (c *call) describeSnapshotAttribute() (any, error) {
	if c.form.oneOf("Attribute", "createVolumePermission") == "" {
		c.form.required("Attribute")
	}
	return c.onSnapshot(func(p *snapshot) (any, error) {
		return members{{"snapshotId", p.id}, {"createVolumePermission", permissionsXML(p.shared)}}, nil
	})
}
