package awstest

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// A replaceTask replaces the root volume of an instance.
type replaceTask struct {
	id, instance    string
	image, snapshot string // of the new volume; the image may be ""
	disk            ebs    // describes the new volume
	failure         string // the state in which it ends, or "" if it succeeds
	deleteOld, done bool
	tags            tags
	started, ends   time.Time
}

// settle attaches the volumes of the tasks that are due, and deletes those of
// terminated instances. The caller holds s.mu.
func (r *region) settle(now time.Time) {
	for _, id := range slices.Sorted(maps.Keys(r.replaces)) {
		if t := r.replaces[id]; !t.done && !now.Before(t.ends) {
			t.done = true
			r.replace(r.instances[t.instance], t)
		}
	}
	for id, v := range r.volumes {
		if i := v.instance; i != nil && i.state(now).Name == "terminated" {
			if v.instance = nil; v.delete {
				delete(r.volumes, id)
			}
		}
	}
}

// replace ends a task.
func (r *region) replace(i *instance, t *replaceTask) {
	switch t.failure {
	case "failed": // the old volume is still attached
		return
	case "failed-detached":
		i.kept = append(i.kept, i.root.id)
		i.root.instance, i.root = nil, nil
		return
	}
	old := i.root
	i.root = r.newVolume(&t.disk, i, nil, t.ends)
	i.image = cmp.Or(t.image, i.image)
	if old == nil {
		return
	}
	if old.instance = nil; t.deleteOld {
		delete(r.volumes, old.id)
	} else {
		i.kept = append(i.kept, old.id)
	}
}

type replaceXML struct {
	ID        string     `xml:"replaceRootVolumeTaskId"`
	Instance  string     `xml:"instanceId"`
	State     string     `xml:"taskState"`
	Started   string     `xml:"startTime"`
	Completed string     `xml:"completeTime,omitempty"`
	Image     string     `xml:"imageId,omitempty"`
	Snapshot  string     `xml:"snapshotId,omitempty"`
	Delete    bool       `xml:"deleteReplacedRootVolume"`
	Tags      items[tag] `xml:"tagSet"`
}

func (t *replaceTask) xml(now time.Time) replaceXML {
	x := replaceXML{
		ID: t.id, Instance: t.instance, State: "pending", Started: isoTime(t.started), Image: t.image, Snapshot: t.snapshot,
		Delete: t.deleteOld, Tags: items[tag]{t.tags},
	}
	switch {
	case !now.Before(t.ends):
		x.State, x.Completed = cmp.Or(t.failure, "succeeded"), isoTime(t.ends)
	case now.Sub(t.started) >= t.ends.Sub(now):
		x.State = cmp.Or(strings.Replace(t.failure, "failed", "failing", 1), "in-progress")
	}
	return x
}

// createReplaceTask implements CreateReplaceRootVolumeTask ("Replace the root
// volume for an Amazon EC2 instance" in the EC2 user guide). An image must
// match the instance, a snapshot must be related to the root volume, and by
// default the task restores the launch state.
func (c *call) createReplaceTask() (any, error) {
	f := c.form
	id, token := f.required("InstanceId"), f.string("ClientToken")
	t := &replaceTask{instance: id, image: f.string("ImageId"), snapshot: f.string("SnapshotId"), deleteOld: f.bool("DeleteReplacedRootVolume")}
	t.tags = f.tagsFor("replace-root-volume-task")["replace-root-volume-task"]
	t.failure = c.knobs.ReplaceFailure
	f.int("VolumeInitializationRate", 100, 300)
	if t.image != "" && t.snapshot != "" {
		f.fail(violation("InvalidParameterCombination", "ImageId and SnapshotId cannot be used together"))
	}
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.region(c.Region)
	old, parameters, err := c.repeated(token)
	if err != nil {
		return nil, err
	}
	if old != "" {
		return members{{"replaceRootVolumeTask", r.replaces[old].xml(c.now())}}, nil
	}
	i, err := c.instance(id)
	if err != nil {
		return nil, err
	}
	if err := c.replaceable(i, t); err != nil {
		return nil, err
	}
	t.id, t.started = r.id("replacevol"), c.now()
	t.ends = t.started.Add(c.knobs.Settle)
	r.replaces[t.id] = t
	r.remember(c.Operation, token, parameters, t.id)
	return members{{"replaceRootVolumeTask", t.xml(c.now())}}, nil
}

// replaceable checks whether the task can replace the instance's root volume,
// and sets the task's snapshot. The caller holds s.mu.
func (c *call) replaceable(i *instance, t *replaceTask) error {
	if state := i.state(c.now()).Name; state != "running" || i.root == nil {
		return newError("IncorrectInstanceState", "the instance %s is %s, not running with a root volume", i.id, state)
	}
	r := c.region(c.Region)
	for _, other := range r.replaces {
		if other.instance == i.id && !other.done {
			return newError("IncorrectInstanceState", "the root volume of %s is being replaced by %s", i.id, other.id)
		}
	}
	if t.image != "" {
		im, disk, err := c.bootable(t.image)
		if err != nil {
			return err
		}
		if im.architecture != i.architecture || firmware(im.architecture, im.boot) != firmware(i.architecture, i.boot) {
			return violation("InvalidParameterValue", "the image %s (%s, boot mode %q) does not match the instance %s (%s, boot mode %q)",
				t.image, im.architecture, im.boot, i.id, i.architecture, i.boot)
		}
		t.disk = *disk
		t.disk.Size = max(disk.Size, i.root.size) // a volume never shrinks
		t.snapshot = disk.Snapshot
		return nil
	}
	t.snapshot = cmp.Or(t.snapshot, i.root.snapshot)
	p, err := c.ec2Snapshot(t.snapshot)
	if err != nil {
		return err
	}
	if current := r.snapshots[i.root.snapshot]; current != nil && p.lineage != current.lineage {
		return violation("InvalidParameterValue", "the snapshot %s is not related to the root volume of %s", p.id, i.id)
	}
	t.disk = ebs{Snapshot: p.id, Size: max(p.size, i.root.size), Type: i.root.kind, Delete: i.root.delete, Encrypted: p.encrypted, Key: p.kmsKey}
	return nil
}

// firmware returns the boot mode that instances of an image have ("Instance
// launch behavior with Amazon EC2 boot modes" in the EC2 user guide).
func firmware(architecture, mode string) string {
	if mode == "uefi" || mode == "uefi-preferred" || strings.HasPrefix(architecture, "arm64") {
		return "uefi"
	}
	return "legacy-bios"
}

func (c *call) describeReplaceTasks() (any, error) {
	ids := c.form.list("ReplaceRootVolumeTaskId")
	fs := c.form.filters("Filter", "instance-id")
	pages := c.form.page(1)
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.region(c.Region)
	r.settle(c.now())
	for _, id := range ids {
		if r.replaces[id] == nil {
			return nil, newError("InvalidReplaceRootVolumeTaskId.NotFound", "the task '%s' does not exist", id)
		}
	}
	var list []replaceXML
	for _, id := range slices.Sorted(maps.Keys(r.replaces)) {
		t := r.replaces[id]
		if (len(ids) == 0 || slices.Contains(ids, id)) && fs.match(map[string]string{"instance-id": t.instance}, t.tags) {
			list = append(list, t.xml(c.now()))
		}
	}
	return paged(pages, c, "replaceRootVolumeTaskSet", list)
}
