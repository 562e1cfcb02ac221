package awstest

import (
	"maps"
	"slices"
	"time"
)

// A recycleBin holds what was deleted while [Knobs.RecycleBin] was set ("Recycle
// Bin" in the EBS user guide). Images in it keep their snapshots from being
// deleted.
type recycleBin struct {
	snapshots map[string]binned[*snapshot]
	images    map[string]binned[*image]
}

type binned[T any] struct {
	object      T
	enter, exit time.Time
}

// purge forgets what has left the bin. The caller holds s.mu.
func (s *Server) purge(r *region) {
	now := s.now()
	maps.DeleteFunc(r.bin.images, func(_ string, b binned[*image]) bool { return !now.Before(b.exit) })
	maps.DeleteFunc(r.bin.snapshots, func(_ string, b binned[*snapshot]) bool {
		if now.Before(b.exit) {
			return false
		}
		for _, sum := range b.object.blocks {
			s.blocks.release(sum)
		}
		return true
	})
}

type binXML struct {
	Snapshot    string `xml:"snapshotId,omitempty"`
	Image       string `xml:"imageId,omitempty"`
	Name        string `xml:"name,omitempty"`
	Description string `xml:"description,omitempty"`
	Enter       string `xml:"recycleBinEnterTime"`
	Exit        string `xml:"recycleBinExitTime"`
}

// listBin reads the parameters of a request that lists the bin.
func (c *call) listBin(ids string) ([]string, pageRequest, error) {
	list, pages := c.form.list(ids), c.form.page(5)
	return list, pages, c.ready()
}

func (c *call) listSnapshotsInBin() (any, error) {
	ids, pages, err := c.listBin("SnapshotId")
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.region(c.Region)
	c.purge(r)
	var list []binXML
	for _, id := range slices.Sorted(maps.Keys(r.bin.snapshots)) {
		if b := r.bin.snapshots[id]; len(ids) == 0 || slices.Contains(ids, id) {
			list = append(list, binXML{Snapshot: id, Description: b.object.description, Enter: isoTime(b.enter), Exit: isoTime(b.exit)})
		}
	}
	return paged(pages, c, "snapshotSet", list)
}

func (c *call) listImagesInBin() (any, error) {
	ids, pages, err := c.listBin("ImageId")
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.region(c.Region)
	c.purge(r)
	var list []binXML
	for _, id := range slices.Sorted(maps.Keys(r.bin.images)) {
		if b := r.bin.images[id]; len(ids) == 0 || slices.Contains(ids, id) {
			list = append(list, binXML{Image: id, Name: b.object.name, Description: b.object.description, Enter: isoTime(b.enter), Exit: isoTime(b.exit)})
		}
	}
	return paged(pages, c, "imageSet", list)
}

func (c *call) restoreSnapshotFromBin() (any, error) {
	id := c.form.required("SnapshotId")
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.region(c.Region)
	c.purge(r)
	b, found := r.bin.snapshots[id]
	if !found {
		return nil, newError("InvalidSnapshot.NotFound", "the snapshot '%s' is not in the Recycle Bin", id)
	}
	delete(r.bin.snapshots, id)
	r.snapshots[id] = b.object
	return members{{"snapshotId", id}, {"status", "recovering"}}, nil
}

func (c *call) restoreImageFromBin() (any, error) {
	id := c.form.required("ImageId")
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.region(c.Region)
	c.purge(r)
	b, found := r.bin.images[id]
	if !found {
		return nil, newError("InvalidAMIID.NotFound", "the image id '[%s]' is not in the Recycle Bin", id)
	}
	for _, other := range r.images {
		if other.name == b.object.name {
			return nil, newError("InvalidAMIName.Duplicate", "AMI name %s is already in use by AMI %s", other.name, other.id)
		}
	}
	delete(r.bin.images, id)
	r.images[id] = b.object
	return yes, nil
}
