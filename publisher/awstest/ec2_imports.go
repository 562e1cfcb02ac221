package awstest

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
)

// An importTask is a task that ImportSnapshot started.
type importTask struct {
	id, description     string
	bucket, key         string
	encrypted           bool
	kmsKey              string
	tags                tags
	size                int64
	started, ends       time.Time
	state, message      string // after active: completed or deleted
	snapshot            string
	failure             string // with which the task will fail
	snapshotDescription string
}

type taskXML struct {
	ID          string     `xml:"importTaskId"`
	Description string     `xml:"description,omitempty"`
	Detail      detailXML  `xml:"snapshotTaskDetail"`
	Tags        items[tag] `xml:"tagSet"`
}

type detailXML struct {
	Description string  `xml:"description,omitempty"`
	Size        float64 `xml:"diskImageSize"`
	Encrypted   bool    `xml:"encrypted"`
	Format      string  `xml:"format"`
	Key         string  `xml:"kmsKeyId,omitempty"`
	Progress    string  `xml:"progress,omitempty"`
	Snapshot    string  `xml:"snapshotId,omitempty"`
	State       string  `xml:"status"`
	Message     string  `xml:"statusMessage,omitempty"`
	Bucket      string  `xml:"userBucket>s3Bucket"`
	S3Key       string  `xml:"userBucket>s3Key"`
}

func (t *importTask) xml(now time.Time) taskXML {
	x := taskXML{ID: t.id, Description: t.description, Tags: items[tag]{t.tags}, Detail: detailXML{
		Description: t.snapshotDescription, Size: float64(t.size), Encrypted: t.encrypted, Format: "RAW", Key: t.kmsKey,
		Snapshot: t.snapshot, State: cmp.Or(t.state, "active"), Message: t.message, Bucket: t.bucket, S3Key: t.key,
	}}
	if t.state == "" {
		// The message of an active task is its phase.
		part := 0.0
		if whole := t.ends.Sub(t.started); whole > 0 {
			part = float64(now.Sub(t.started)) / float64(whole)
		}
		x.Detail.Progress = fmt.Sprint(min(99, int(part*100)))
		switch {
		case part < 0.1:
			x.Detail.Message = "pending"
		case part < 0.4:
			x.Detail.Message = "validating"
		case part < 0.8:
			x.Detail.Message = "converting"
		default:
			x.Detail.Message = "uploading"
		}
	}
	return x
}

func (c *call) importSnapshot() (any, error) {
	f := c.form
	token, role := f.string("ClientToken"), cmp.Or(f.string("RoleName"), "vmimport")
	t := &importTask{description: f.description("Description")}
	container := f.at("DiskContainer")
	t.snapshotDescription = container.description("Description")
	container.oneOf("Format", "RAW", "raw", "Raw")
	container.required("Format")
	source := container.at("UserBucket")
	t.bucket, t.key = source.required("S3Bucket"), source.required("S3Key")
	t.tags = f.tagsFor("import-snapshot-task")["import-snapshot-task"]
	var err error
	if t.encrypted, t.kmsKey, err = c.encryption(f.bool("Encrypted"), f.string("KmsKeyId")); err != nil {
		f.fail(err)
	}
	if client := f.at("ClientData"); f.has("ClientData") {
		client.string("Comment")
		client.string("UploadStart")
		client.string("UploadEnd")
		client.string("UploadSize")
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
	if old := r.tasks[id]; old != nil {
		return old.answer(c.now()), nil
	}
	if !c.roleExists(role) {
		return nil, newError("InvalidParameter", "the service role %s provided does not exist or does not have sufficient permissions", role)
	}
	b := c.buckets[t.bucket]
	if b == nil {
		return nil, newError("InvalidParameter", "the bucket %s does not exist", t.bucket)
	}
	if b.region != c.Region {
		return nil, newError("InvalidParameter", "the bucket %s is in %s, not in %s", t.bucket, b.region, c.Region)
	}
	object := b.objects[t.key]
	if object == nil {
		return nil, newError("InvalidParameter", "the object %s does not exist in bucket %s", t.key, t.bucket)
	}
	t.id, t.started, t.size = r.id("import-snap"), c.now(), object.size
	t.ends = t.started.Add(c.knobs.Settle)
	t.failure = c.knobs.ImportFailure
	r.tasks[t.id] = t
	r.remember(c.Operation, token, parameters, t.id)
	return t.answer(c.now()), nil
}

func (t *importTask) answer(now time.Time) members {
	x := t.xml(now)
	return members{{"description", x.Description}, {"importTaskId", x.ID}, {"snapshotTaskDetail", x.Detail}, {"tagSet", x.Tags}}
}

// update completes a task that is due. The caller holds s.mu.
func (c *call) update(t *importTask) {
	if t.state != "" || c.now().Before(t.ends) {
		return
	}
	failure := t.failure
	if failure == "" {
		p, err := c.convert(t)
		if err != nil {
			failure = "ClientError: " + err.Error()
		} else {
			t.state, t.snapshot = "completed", p.id
			return
		}
	}
	// The state of a failed task is deleted, and its message is the reason.
	t.state, t.message = "deleted", failure
}

// convert creates the snapshot. The caller holds s.mu.
func (c *call) convert(t *importTask) (*snapshot, error) {
	b := c.buckets[t.bucket]
	if b == nil || b.objects[t.key] == nil {
		return nil, errors.New("disk validation failed: no such object")
	}
	object := b.objects[t.key]
	if object.size == 0 {
		return nil, errors.New("disk validation failed: the disk is empty")
	}
	p := c.newSnapshot(c.region(c.Region), nil)
	p.size = (object.size + gib - 1) / gib
	p.encrypted, p.kmsKey = t.encrypted, t.kmsKey
	p.description = fmt.Sprintf("Created by AWS-VMImport service for %s", t.id)
	data, buffer := object.reader(), make([]byte, BlockSize)
	for index := int32(0); ; index++ {
		clear(buffer)
		n, err := io.ReadFull(data, buffer)
		if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
			c.removeSnapshot(c.region(c.Region), p)
			return nil, fmt.Errorf("read the object: %w", err)
		}
		if n == 0 {
			break
		}
		sum := sha256.Sum256(buffer)
		if sum == zeroDigest {
			continue
		}
		if err := c.blocks.add(sum, buffer); err != nil {
			c.removeSnapshot(c.region(c.Region), p)
			return nil, fmt.Errorf("store a block: %w", err)
		}
		p.blocks[index] = sum
	}
	p.completed = c.now()
	return p, nil
}

func (c *call) describeImportTasks() (any, error) {
	ids := c.form.list("ImportTaskId")
	fs := c.form.filters("Filters", "task-state", "tag-key", "tag:")
	pages := c.form.page(1)
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r, flaps := c.region(c.Region), c.flaps()
	for _, id := range ids {
		t := r.tasks[id]
		if t == nil || flaps && c.young(t.started) {
			return nil, newError("InvalidConversionTaskId", "the task %s does not exist", id)
		}
	}
	var list []taskXML
	for _, id := range slices.Sorted(maps.Keys(r.tasks)) {
		if t := r.tasks[id]; len(ids) == 0 || slices.Contains(ids, id) {
			c.update(t)
			if x := t.xml(c.now()); fs.match(map[string]string{"task-state": x.Detail.State}, t.tags) {
				list = append(list, x)
			}
		}
	}
	return paged(pages, c, "importSnapshotTaskSet", list)
}

func (c *call) cancelImportTask() (any, error) {
	id, why := c.form.required("ImportTaskId"), c.form.string("CancelReason")
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.region(c.Region).tasks[id]
	if t == nil {
		return nil, newError("InvalidConversionTaskId", "the task %s does not exist", id)
	}
	c.update(t)
	if t.state != "" {
		return nil, newError("IncorrectState", "the task %s is %s and cannot be cancelled", id, t.state)
	}
	t.state, t.message = "deleted", cmp.Or(why, "cancelled by the user")
	return members{{"importTaskId", id}, {"previousState", "active"}, {"state", "deleting"}}, nil
}
